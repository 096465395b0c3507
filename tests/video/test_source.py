"""Frames of files and streams."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import SIZE, av, moving_square, streamed, write_video

from centermask.utils.errors import InputError, RunError
from centermask.video import source
from centermask.video.source import Frame, VideoSource, open_source


def _read(path: Path | str) -> tuple[list[Frame], list[np.ndarray]]:
    """Return the frames and their images in RGB."""
    frames, images = [], []
    for frame in VideoSource(str(path)):
        frames.append(frame)
        images.append(frame.read()[..., ::-1])
    return frames, images


def test_frames(tmp_path: Path) -> None:
    images = moving_square(6)
    write_video(tmp_path / 'a.mp4', images)
    video = VideoSource(str(tmp_path / 'a.mp4'))
    assert (video.live, video.rate, video.total, video.pixel_shape) == (False, 25, 6, 1)
    frames, read = _read(tmp_path / 'a.mp4')
    assert [frame.number for frame in frames] == [*range(6)]
    assert np.allclose([frame.seconds for frame in frames], np.arange(6) / 25)
    for image, expected in zip(read, images, strict=True):
        assert np.abs(image.astype(int) - expected).mean() < 4


@pytest.mark.parametrize('turn', [90, 180, 270])
def test_rotated_videos_are_upright(turn: int, tmp_path: Path) -> None:
    """A phone held upright stores lying frames and a rotation."""
    upright = moving_square(2, SIZE[::-1] if turn % 180 else SIZE)
    write_video(tmp_path / 'a.mp4', [np.rot90(image, -turn // 90) for image in upright], rotation=turn)
    image = _read(tmp_path / 'a.mp4')[1][0]
    assert image.shape == upright[0].shape
    assert np.abs(image.astype(int) - upright[0]).mean() < 4


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = [0, 0.04, 0.5, 0.54, 2]
    write_video(tmp_path / 'a.mkv', moving_square(5), [1 + time for time in times])
    assert np.allclose([frame.seconds for frame in _read(tmp_path / 'a.mkv')[0]], times, atol=2e-3)


def test_damaged_files(tmp_path: Path) -> None:
    whole = tmp_path / 'whole.mp4'
    write_video(whole, moving_square(40), movflags='faststart')
    content = whole.read_bytes()
    for name, part in (('empty', b''), ('text', b'no video' * 99), ('index', content[:300])):
        (tmp_path / f'{name}.mp4').write_bytes(part)
        with pytest.raises(InputError, match=rf'/{name}\.mp4 (could not be read|holds no pictures), it is damaged'):
            VideoSource(str(tmp_path / f'{name}.mp4'))
    cut = tmp_path / 'cut.mp4'
    cut.write_bytes(content[: len(content) * 6 // 10])
    frames = []
    with pytest.raises(RunError, match=r'cut off after \d+ of 40 frames: their results are written'):
        for frame in VideoSource(str(cut)):
            frames.append(frame)
    assert 5 < len(frames) < 40
    noise = np.frombuffer(content, np.uint8).copy()
    noise[-len(noise) // 3 :: 7] ^= 0x55
    cut.write_bytes(noise.tobytes())
    with pytest.raises(RunError, match='is damaged'):
        for frame in VideoSource(str(cut)):
            frames.append(frame)


def test_a_trimmed_video(tmp_path: Path) -> None:
    """Trimmed without being encoded anew, it announces frames that an edit list hides."""
    write_video(tmp_path / 'a.mp4', moving_square(40))
    with av.open(str(tmp_path / 'a.mp4')) as whole, av.open(str(tmp_path / 'b.mp4'), 'w') as trimmed:
        stream = trimmed.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.pts is not None:
                packet.pts -= round(0.6 / packet.time_base)
                packet.dts -= round(0.6 / packet.time_base)
                packet.stream = stream
                trimmed.mux(packet)
    assert VideoSource(str(tmp_path / 'b.mp4')).total == 40
    assert len(_read(tmp_path / 'b.mp4')[0]) == 25


def test_a_colon_in_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would take what stands before it for a protocol."""
    write_video(tmp_path / 'a.mp4', moving_square(2))
    (tmp_path / 'a.mp4').rename(tmp_path / 'cam1:a.mp4')
    monkeypatch.chdir(tmp_path)
    assert len(_read('cam1:a.mp4')[0]) == 2


def test_a_live_stream(tmp_path: Path) -> None:
    write_video(tmp_path / 'a.ts', moving_square(30), format='mpegts')
    with streamed((tmp_path / 'a.ts').read_bytes(), 0.5) as address:
        video = VideoSource(address)
        assert video.live and video.total is None and video.rate == Fraction(25)
        assert len(list(video)) == 30


def test_dead_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, 'TIMEOUT', 1.0)
    with pytest.raises(InputError, match=r"stream http://127.0.0.1:9/x can't be opened, connection refused: check"):
        VideoSource('http://user:secret@127.0.0.1:9/x')
    with (
        streamed(b'', 0.1, then_silent=True) as address,
        pytest.raises(InputError, match="can't be opened, it sent nothing for 1 seconds"),
    ):
        VideoSource(address)
    write_video(tmp_path / 'a.ts', moving_square(30), format='mpegts')
    with streamed((tmp_path / 'a.ts').read_bytes(), 0.5, then_silent=True) as address:
        frames = []
        with pytest.raises(RunError, match=r'The stream .* sent nothing for 1 seconds after frame \d+: the results'):
            for frame in VideoSource(address):
                frames.append(frame)
        assert len(frames) >= 25


def test_no_webcam() -> None:
    if Path('/dev/video97').exists():
        pytest.skip('there is one')
    with pytest.raises(InputError, match='There is no webcam 97'):
        open_source('97')
