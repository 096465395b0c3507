"""Semantic PNGs made from panoptic ones, by the command, and their metric."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.small_panoptic import CONTENT, METAINFO, make_ids, write_set

from centermask.datasets.semantic_metric import SemanticIoU
from centermask.engine.cli import run
from centermask.utils.errors import InputError

# Of columns of 10 pixels: a crowd, an object, sky (id 9), grass (id 3), no label.
LABELS = [0, 0, 2, 1, 255, 255]


@pytest.fixture
def make(tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[[], tuple[int, str]]:
    """Run the command on the set in ``tmp_path``; return the exit code and what it prints."""

    def call() -> tuple[int, str]:
        paths = (tmp_path / 'panoptic.json', tmp_path / 'panoptic', tmp_path / 'semantic')
        code = run(lambda: tools('make_semantic_masks')([*map(str, paths), '--processes', '2']))
        return code, ''.join(capsys.readouterr())

    return call


def test_command(make: Callable, tmp_path: Path) -> None:
    write_set(tmp_path)
    assert make()[0] == 0
    written = cv2.imread(str(tmp_path / 'semantic/a.png'), cv2.IMREAD_UNCHANGED)
    assert written.shape == (40, 60) and written.dtype == np.uint8
    assert written[0, ::10].tolist() == LABELS and (written == written[0]).all()


def test_command_goes_on_where_it_stopped(make: Callable, tmp_path: Path) -> None:
    write_set(tmp_path)
    make()
    assert '0 semantic PNGs written, 1' in make()[1]
    later = (tmp_path / 'semantic/a.png').stat().st_mtime + 10
    os.utime(tmp_path / 'panoptic/a.png', (later, later))
    assert '1 semantic PNGs written, 0' in make()[1]


def test_command_says_what_is_wrong(make: Callable, tmp_path: Path) -> None:
    strange = make_ids()
    strange[0, 0] = 77
    write_set(tmp_path, strange)
    code, said = make()
    assert code == 1 and 'holds the segment 77' in said and not list(tmp_path.glob('semantic/*'))
    write_set(tmp_path, categories=CONTENT['categories'][:3])
    code, said = make()
    assert code == 2 and 'gives segment 300 of a.png the category 1' in said


def test_images_that_differ_by_their_ending_alone_are_refused(make: Callable, tmp_path: Path) -> None:
    """The semantic PNG of one would replace the other's."""
    images = [*CONTENT['images'], {'id': 5, 'file_name': 'a.bmp'}]
    annotations = [*CONTENT['annotations'], {'image_id': 5, 'file_name': 'a.png', 'segments_info': []}]
    write_set(tmp_path, images=images, annotations=annotations)
    code, said = make()
    assert code == 2 and '2 images of' in said and 'rename all but one' in said


def test_mean_iou(tmp_path: Path) -> None:
    """The void counts nowhere; things and both kinds of stuff are three classes."""
    metric = SemanticIoU(*map(str, write_set(tmp_path)))
    metric.dataset_meta = METAINFO
    found = torch.zeros(1, 40, 60, dtype=torch.long)
    found[..., 20:] = 2
    metric.process({}, [{'img_id': 4, 'pred_sem_seg': {'sem_seg': found}}])
    assert metric.evaluate(1) == {
        'semantic/mIoU': pytest.approx(100 * (1 + 0 + 1 / 2) / 3),
        'semantic/aAcc': pytest.approx(75),
    }
    with pytest.raises(InputError, match='SemanticIoU needs panoptic maps and the model makes none'):
        metric.process({}, [{'img_id': 4}])
