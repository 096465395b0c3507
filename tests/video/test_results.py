"""Detections by frame, as COCO's results."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from centermask.video.results import FrameResults

FOUND: dict[str, Any] = {
    'labels': [1, 0],
    'scores': [0.9, 0.25],
    'bboxes': [[1, 2, 11, 22], [0, 0, 4, 4]],
    'track_ids': [7, -1],
}
NONE: dict[str, Any] = {'labels': [], 'scores': [], 'bboxes': []}


def _write(path: Path, frames: int) -> None:
    with FrameResults(path, ['a', 'ü']) as results:
        for number in range(frames):
            results.add(number, number / 25, (30, 40), FOUND if number == 1 else NONE)


def test_frames_with_and_without_detections(tmp_path: Path) -> None:
    _write(tmp_path / 'a.json', 3)
    found = COCO(str(tmp_path / 'a.json'))
    assert found.dataset['images'] == [
        {'id': number, 'height': 30, 'width': 40, 'seconds': number / 25} for number in range(3)
    ]
    assert [category['name'] for category in found.dataset['categories']] == ['a', 'ü']
    first, second = found.loadAnns(found.getAnnIds(imgIds=[1]))
    assert first['bbox'] == [1, 2, 10, 20] and first['track_id'] == 7 and 'track_id' not in second
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']


def test_an_error_leaves_what_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), FrameResults(tmp_path / 'a.json', ['a', 'b']) as results:
        results.add(4, 0.16, (30, 40), FOUND)
        raise KeyboardInterrupt
    found = json.loads((tmp_path / 'a.json').read_text())
    assert [image['id'] for image in found['images']] == [4] and len(found['annotations']) == 2


def test_without_a_frame_there_is_no_file(tmp_path: Path) -> None:
    _write(tmp_path / 'a.json', 0)
    assert not list(tmp_path.iterdir())


def test_memory_holds_no_frames(tmp_path: Path) -> None:
    """A camera may run for days."""
    tracemalloc.start()
    _write(tmp_path / 'a.json', 6000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 500_000
