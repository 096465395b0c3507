"""Semantic PNGs beside COCO data: as they are trained on, and what ends a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.small_coco import PIPELINE
from mmdet.registry import TRANSFORMS
from PIL import Image

from centermask.datasets import CenterMaskPanopticDataset
from centermask.utils.errors import InputError, RunError

WITH_SEG = [PIPELINE[0], {**PIPELINE[1], 'with_seg': True}, PIPELINE[2]]


@pytest.fixture
def build_panoptic(build: Callable, tmp_path: Path) -> Callable[..., CenterMaskPanopticDataset]:
    """Write semantic PNGs of the two images, ``pixels`` for the second, and read the set."""

    def build_panoptic(pixels: np.ndarray | None = None, **arguments: object) -> CenterMaskPanopticDataset:
        (tmp_path / 'semantic').mkdir(exist_ok=True)
        for name in ('1.png', '2.png'):
            labels = np.full((40, 60), 3, np.uint8)
            labels[10:30, 10:30] = 0
            labels[:5] = 255
            Image.fromarray(labels if pixels is None or name == '1.png' else pixels).save(tmp_path / 'semantic' / name)
        return build(
            type='CenterMaskPanopticDataset',
            data_prefix={'img': 'images/', 'seg': 'semantic/'},
            metainfo={'classes': ('cat', 'dog'), 'stuff_classes': ('sea', 'sky', 'sand')},
            pipeline=arguments.pop('pipeline', WITH_SEG),
            **arguments,
        )

    return build_panoptic


def test_coco_has_80_things_and_53_kinds_of_stuff() -> None:
    info = CenterMaskPanopticDataset.METAINFO
    assert (len(info['classes']), len(info['stuff_classes'])) == (80, 53)


@pytest.mark.parametrize('flip', [None, 'horizontal', 'vertical'])
@pytest.mark.parametrize('scale', [(97, 70), (30, 21), (1000, 33)])
def test_labels_stay_on_the_objects(build_panoptic: Callable, scale: tuple[int, int], flip: str | None) -> None:
    """A pixel has the object's label, 0, exactly where its centre lies inside the object's outline."""
    steps = [{'type': 'RandomChoiceResize', 'scales': [scale], 'resize_type': 'centermask.Resize'}]
    if flip:
        steps.append({'type': 'RandomFlip', 'prob': 1.0, 'direction': flip})
    sample = build_panoptic(pipeline=[*WITH_SEG[:2], *steps, WITH_SEG[2]])[0]
    labels = sample['data_samples'].gt_sem_seg.sem_seg[0].numpy()
    assert labels.shape == sample['inputs'].shape[1:]
    x1, y1, x2, y2 = sample['data_samples'].gt_instances.masks.masks[0][0].reshape(-1, 2)[[0, 2]].reshape(-1)
    (x1, x2), (y1, y2) = sorted((x1, x2)), sorted((y1, y2))
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]] + 0.5
    assert np.array_equal(labels == 0, (x1 < x) & (x < x2) & (y1 < y) & (y < y2))
    assert set(np.unique(labels)) == {0, 3, 255}


def test_labels_have_the_size_of_the_image_where_mmdetection_rounds_otherwise() -> None:
    """640 x 360 becomes 1000 x 562 by the recipe and 1000 x 563 by MMDetection."""
    resize = TRANSFORMS.build(dict(type='Resize', _scope_='centermask', scale=(1000, 600)))
    resized = resize({'img': np.zeros((360, 640, 3), np.uint8), 'gt_seg_map': np.zeros((360, 640), np.uint8)})
    assert resized['gt_seg_map'].shape == resized['img'].shape[:2] == (562, 1000)


def test_testing_needs_no_semantic_pngs(build: Callable) -> None:
    dataset = build(type='CenterMaskPanopticDataset', test_mode=True)
    assert len(dataset) == 2 and 'gt_sem_seg' not in dataset[0]['data_samples']


def damaged(kind: str) -> np.ndarray:
    return {
        'size': np.zeros((40, 61), np.uint8),
        'label': np.full((40, 60), 4, np.uint8),
        'colours': np.zeros((40, 60, 3), np.uint8),
    }[kind]


MESSAGES = {
    'size': r'2\.png is 61x40 pixels but its image 60x40',
    'label': r'2\.png holds the label 4, and the 3 stuff_classes',
    'colours': r'2\.png is of the mode RGB, not of one byte',
}


@pytest.mark.parametrize('kind', MESSAGES)
def test_a_png_that_does_not_fit_ends_the_run_before_it_starts(build_panoptic: Callable, kind: str) -> None:
    with pytest.raises(InputError, match=MESSAGES[kind]):
        build_panoptic(damaged(kind))


@pytest.mark.parametrize('kind', MESSAGES)
def test_a_png_beyond_the_sample_ends_the_run_at_its_image(build_panoptic: Callable, tmp_path: Path, kind: str) -> None:
    dataset = build_panoptic()
    Image.fromarray(damaged(kind)).save(tmp_path / 'semantic/2.png')
    dataset[0]
    with pytest.raises(RunError, match=MESSAGES[kind]):
        dataset[1]


def test_missing_pngs(build_panoptic: Callable, tmp_path: Path) -> None:
    build_panoptic()
    (tmp_path / 'semantic/2.png').rename(tmp_path / 'semantic/3.png')
    with pytest.raises(InputError, match=r'1 of the 2 semantic PNGs .*2\.png: make them with tools/make_semantic'):
        CenterMaskPanopticDataset(
            data_root=str(tmp_path),
            ann_file='annotations.json',
            data_prefix={'img': 'images/', 'seg': 'semantic/'},
            metainfo={'classes': ('cat', 'dog')},
            pipeline=[],
        )
