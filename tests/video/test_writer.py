"""The written video."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import moving_square, read_video

from centermask.utils.errors import RunError
from centermask.video.writer import VideoWriter


def _write(path: Path, images: list[np.ndarray], seconds: list[float]) -> tuple:
    with VideoWriter(path, Fraction(25)) as video:
        for image, time in zip(images, seconds, strict=True):
            video.add(image, time)
    return read_video(path)


def test_times_size_and_colours_stay(tmp_path: Path) -> None:
    images = moving_square(5)
    times = [0, 0.04, 0.5, 0.54, 2]
    written, seconds, _ = _write(tmp_path / 'a.mp4', images, times)
    assert np.allclose(seconds, times, atol=1e-3)
    for image, expected in zip(written, images, strict=True):
        assert image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).mean() < 6
    assert _write(tmp_path / 'a.mp4', images, [i / 25 for i in range(5)])[2] == 25


def test_odd_and_changing_sizes(tmp_path: Path) -> None:
    """H.264 has even sides; a stream that changes its size is scaled to the first one."""
    images = [image[:75, :101] for image in moving_square(3)]
    written, *_ = _write(tmp_path / 'a.mp4', [images[0], np.repeat(images[1], 2, 1), images[2]], [0, 0.04, 0.08])
    assert {image.shape for image in written} == {(76, 102, 3)}


def test_equal_times_follow_each_other(tmp_path: Path) -> None:
    assert len(_write(tmp_path / 'a.mp4', moving_square(4), [0, 1, 1, 0.5])[0]) == 4


def test_an_error_leaves_what_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / 'a.mp4', Fraction(25)) as video:
        for i, image in enumerate(moving_square(3)):
            video.add(image, i / 25)
        raise KeyboardInterrupt
    assert len(read_video(tmp_path / 'a.mp4')[0]) == 3
    with VideoWriter(tmp_path / 'none.mp4', Fraction(25)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['a.mp4']


def test_no_room() -> None:
    with (
        pytest.raises(RunError, match=r"^/dev/full/a.mp4 can't be written \("),
        VideoWriter(Path('/dev/full/a.mp4'), Fraction(25)) as video,
    ):
        video.add(moving_square(1)[0], 0)
