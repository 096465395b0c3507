"""tools/predict.py on videos and streams."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.videos import av, moving_square, read_video, streamed, write_video
from pycocotools.coco import COCO

from centermask.engine.cli import run
from centermask.video import source

REPOSITORY = Path(__file__).resolve().parents[2]
FRAMES = 6


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / 'square.mp4', moving_square(FRAMES))
    return tmp_path / 'square.mp4'


@pytest.fixture
def predict(
    tools: Callable, tiny_config: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> Callable[..., tuple[int, str, str]]:
    def call(*words: object) -> tuple[int, str, str]:
        model = ['--model', tiny_config, '--checkpoint', tiny_run / 'iter_2.pth', '--device', 'cpu']
        code = run(lambda: tools('predict')([str(word) for word in (*words, *model, '--out-dir', tmp_path / 'out')]))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def _read(out: Path) -> dict[str, Any]:
    return json.loads(out.read_text())


def test_video_and_json(predict: Callable, video: Path, tmp_path: Path) -> None:
    code, said, err = predict(video, '--json', '--track', '--score-thr', '0')
    assert code == 0, err
    assert f'square.json: {FRAMES} frames in ' in said and 'of which in percent the model ' in said
    assert f'{FRAMES}/{FRAMES}' in err and 'square.mp4: 100%' in err
    images, seconds, rate = read_video(tmp_path / 'out/square.mp4')
    assert len(images) == FRAMES and rate == 25 and np.allclose(seconds, np.arange(FRAMES) / 25)
    assert images[0].shape == moving_square(1)[0].shape
    assert all((abs(a.astype(int) - b) > 50).any() for a, b in zip(images, moving_square(FRAMES), strict=True))
    found = COCO(str(tmp_path / 'out/square.json'))
    assert sorted(found.imgs) == [*range(FRAMES)]
    assert found.imgs[2] == {'id': 2, 'height': 96, 'width': 128, 'seconds': 0.08}
    annotations = [*found.anns.values()]
    assert {annotation['image_id'] for annotation in annotations} == set(found.imgs)
    assert all(found.annToMask(annotation).shape == (96, 128) for annotation in annotations)
    assert all(0 < annotation['score'] < 1 and 'mask_score' in annotation for annotation in annotations)
    assert any(annotation.get('track_id', 0) > 0 for annotation in annotations)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['square.json', 'square.mp4']


def test_the_detections_are_those_of_an_image(predict: Callable, tmp_path: Path) -> None:
    """A frame without loss is an image; images and videos are given together."""
    image = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 9, (12, 16, 1), np.uint8) * 20, 8, 0), 8, 1)
    image = np.repeat(image, 3, 2)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    with av.open(str(tmp_path / 'a.mkv'), 'w') as container:
        stream = container.add_stream('ffv1', rate=25)
        stream.height, stream.width, stream.pix_fmt = *image.shape[:2], 'bgr0'
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'bgr24')))
        container.mux(stream.encode(None))
    assert predict(tmp_path / 'a.png', tmp_path / 'a.mkv', '--json')[0] == 0
    of_image = _read(tmp_path / 'out/predictions.segm.json')['annotations']
    of_frame = _read(tmp_path / 'out/a.json')['annotations']
    assert len(of_image) == len(of_frame) > 0
    for one, other in zip(of_image, of_frame, strict=True):
        assert one['segmentation'] == other['segmentation'] and one['category_id'] == other['category_id']
        assert one['score'] == pytest.approx(other['mask_score'], abs=1e-5)


def test_live_stream(predict: Callable, tmp_path: Path) -> None:
    """Frames come faster than the model is, so that some are dropped, and the video keeps the time."""
    write_video(tmp_path / 'a.ts', moving_square(30), format='mpegts')
    with streamed((tmp_path / 'a.ts').read_bytes(), 0.3) as address:
        code, said, err = predict(address, '--json')
    assert code == 0, err
    out = next((tmp_path / 'out').glob('127.0.0.1_*_live.json'))
    found = _read(out)
    numbers = [image['id'] for image in found['images']]
    assert numbers == sorted(numbers) and numbers[0] == 0 and len(numbers) < 30
    assert f'{len(numbers)} frames, {30 - len(numbers)} dropped in ' in said
    _, seconds, _ = read_video(out.with_suffix('.mp4'))
    assert np.allclose(seconds, [number / 25 for number in numbers], atol=0.01)


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(number: int, code: int, tiny_config: Path, tiny_run: Path, tmp_path: Path) -> None:
    """A stream without an end: the video is playable and the JSON complete."""
    write_video(tmp_path / 'a.ts', moving_square(30), format='mpegts')
    with streamed((tmp_path / 'a.ts').read_bytes(), 1, then_silent=True) as address:
        command = [sys.executable, 'tools/predict.py', address, str(tiny_config), str(tiny_run / 'iter_2.pth')]
        out = tmp_path / 'out'
        process = subprocess.Popen(
            [*command, '--out-dir', str(out), '--json'],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, 'PYTHONPATH': str(REPOSITORY / 'projects')},
        )
        deadline = time.monotonic() + 300
        while not any(path.stat().st_size > 1000 for path in out.glob('.part-*.json')):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert 'ends after this frame, its results are written' in said and 'Traceback' not in said
    found, video = sorted(out.iterdir())
    frames = _read(found)['images']
    assert len(read_video(video)[0]) == len(frames) > 0


def test_bad_videos(predict: Callable, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence each; a cut-off video's frames are written, and other videos are predicted."""
    monkeypatch.setattr(source, 'TIMEOUT', 1.0)
    (tmp_path / 'text.mp4').write_text('no video')
    write_video(tmp_path / 'whole.mp4', moving_square(40), movflags='faststart')
    content = (tmp_path / 'whole.mp4').read_bytes()
    (tmp_path / 'cut.mp4').write_bytes(content[: len(content) * 6 // 10])
    for words, code, sentence in (
        ([tmp_path / 'text.mp4'], 2, 'text.mp4 could not be read, it is damaged, cut off or no video'),
        ([tmp_path / 'no.mp4'], 2, "no.mp4 doesn't exist"),
        (['http://127.0.0.1:9/live'], 2, "can't be opened, connection refused"),
        ([tmp_path / 'cut.mp4'], 1, 'is damaged or cut off after '),
        ([video, tmp_path / 'text.mp4'], 1, '1 of the 2 videos are not or not wholly predicted'),
    ):
        found, _, err = predict(*words)
        last = err.splitlines()[-1]
        assert found == code and last.startswith('error: ') and sentence in last and 'Traceback' not in err
    assert len(read_video(tmp_path / 'out/cut.mp4')[0]) > 5 and (tmp_path / 'out/square.mp4').exists()


def test_no_display(predict: Callable, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    code, _, err = predict(video, '--show')
    assert code == 2 and err.splitlines()[-1].startswith('error: --show: there is no display')


def test_a_video_is_never_replaced(predict: Callable, video: Path, tmp_path: Path) -> None:
    (tmp_path / 'out').mkdir()
    video = video.rename(tmp_path / 'out/square.mp4')
    before = video.read_bytes()
    other = tmp_path / 'square.mkv'
    other.write_bytes(before)
    for words in ([video], [other, video]):
        code, _, err = predict(*words)
        assert code == 2 and 'would be replaced: name another folder' in err and video.read_bytes() == before


def test_no_model(tools: Callable, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match='2'):
        tools('predict')(['a.jpg'])
    assert 'name a model: --model NAME_OR_CONFIG' in capsys.readouterr().err
