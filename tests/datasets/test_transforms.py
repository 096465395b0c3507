"""Boxes and flips of the paper recipe, also in test-time augmentation; ``test_augmentation.py`` has whole pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from centermask.datasets import LegacyBoxes, LegacyFlip, Resize


def example(width: int = 640, height: int = 427, seed: int = 0) -> dict:
    """A loaded image of noise with one object, a triangle in a 100 x 50 box at (10, 20)."""
    img = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return {
        'img': img,
        'img_shape': (height, width),
        'ori_shape': (height, width),
        'gt_bboxes': HorizontalBoxes(torch.tensor([[10.0, 20.0, 110.0, 70.0]])),
        'gt_bboxes_labels': np.array([3]),
        'gt_ignore_flags': np.array([False]),
        'gt_masks': PolygonMasks([[np.array([10.0, 20.0, 110.0, 20.0, 60.0, 70.0])]], height, width),
    }


def test_test_time_augmentation_takes_resize_and_legacy_flip() -> None:
    resize = {'type': 'Resize', '_scope_': 'centermask', 'rounding': 'down'}
    pipeline = TRANSFORMS.build(
        {
            'type': 'TestTimeAug',
            'transforms': [
                [{**resize, 'scale': (100, 60)}, {**resize, 'scale': (100, 80)}],
                [{'type': 'LegacyFlip', 'prob': 1.0}, {'type': 'LegacyFlip', 'prob': 0.0}],
                [{'type': 'PackDetInputs', 'meta_keys': ('img_shape', 'scale_factor', 'flip', 'flip_offset')}],
            ],
        }
    )
    views = pipeline(example(64, 48))['data_samples']
    assert [view.img_shape for view in views] == [(60, 80), (60, 80), (75, 100), (75, 100)]
    assert [view.flip for view in views] == [True, False, True, False]
    assert {view.flip_offset for view in views} == {1}


def test_names_of_resizes_until_version_0_2() -> None:
    """Configs that trainings saved stay usable; MMDetection's own Resize is another."""
    for old, new in (('RoundResize', {}), ('FloorResize', {'rounding': 'down'})):
        one, other = (
            TRANSFORMS.build(dict(scale=(100, 60), **step))
            for step in ({'type': old}, {'type': 'Resize', '_scope_': 'centermask', **new})
        )
        assert isinstance(one, Resize) and one(example(64, 48))['img_shape'] == other(example(64, 48))['img_shape']
        random = TRANSFORMS.build(
            dict(type='RandomResize', scale=[(100, 60)] * 2, resize_type='centermask.Resize', **new)
        )
        assert type(random.resize) is Resize and random.resize.size is one.size
    assert not isinstance(TRANSFORMS.build(dict(type='Resize', scale=(100, 60))), Resize)


def test_legacy_boxes_end_at_the_last_pixel() -> None:
    results = example(200, 100)
    results['gt_bboxes'] = HorizontalBoxes(
        torch.tensor([[10.0, 20.0, 110.0, 70.0], [150.0, 90.0, 200.0, 100.0], [5.0, 5.0, 6.0, 30.0], [-3.0, 0, 9, 120]])
    )
    results['gt_bboxes_labels'] = np.arange(4)
    results['gt_ignore_flags'] = np.array([False, False, False, True])
    results['gt_masks'] = PolygonMasks([[np.full(6, float(i))] for i in range(4)], 100, 200)

    after = LegacyBoxes()(results)
    # The third is one pixel wide: its first and last column are the same, so nothing is left of it.
    assert after['gt_bboxes'].tensor.tolist() == [[10, 20, 109, 69], [150, 90, 199, 99], [0, 0, 8, 99]]
    assert after['gt_bboxes_labels'].tolist() == [0, 1, 3]
    assert after['gt_ignore_flags'].tolist() == [False, False, True]
    assert [polygons[0][0] for polygons in after['gt_masks']] == [0, 1, 3]


def test_legacy_flip_maps_x_to_width_minus_x_minus_1() -> None:
    before = example(200, 100)
    img, polygon = before['img'], before['gt_masks'].masks[0][0]
    flip = LegacyFlip(1.0)

    once = flip(before)
    assert np.array_equal(once['img'], img[:, ::-1])
    assert once['gt_bboxes'].tensor.tolist() == [[200 - 110 - 1, 20, 200 - 10 - 1, 70]]
    assert once['gt_masks'].masks[0][0].tolist() == [189, 20, 89, 20, 139, 70]
    assert polygon.tolist() == [10, 20, 110, 20, 60, 70], 'the polygon read from the annotations was changed'

    twice = flip(once)
    assert np.array_equal(twice['img'], img)
    assert twice['gt_bboxes'].tensor.tolist() == [[10, 20, 110, 70]]
    assert twice['gt_masks'].masks[0][0].tolist() == polygon.tolist()


@pytest.mark.parametrize('width', [64, 33])
def test_legacy_flip_moves_bitmaps_with_polygons(width: int) -> None:
    """Pixels stay 0 and 1, and a column left of an object's flipped pixels is what its flipped polygon covers."""
    polygons = PolygonMasks(
        [[np.array([5.0, 3, 25, 3, 25, 20, 5, 20])], [np.array([10.0, 5, 30, 5, 12, 29])]], 30, width
    )
    results = example(width, 30)
    flipped = []
    for masks in (polygons, polygons.to_bitmap()):
        flipped.append(LegacyFlip(1.0)({**results, 'gt_masks': masks})['gt_masks'].to_ndarray())
    assert flipped[1].shape == (2, 30, width)
    assert flipped[1].dtype == bool
    assert np.array_equal(flipped[1][0], flipped[0][0])
    assert (flipped[1] != flipped[0]).mean() < 0.02


@pytest.mark.parametrize('scale', [(400, 61), (400, 233)])
def test_resized_bitmaps_stay_in_place(scale: tuple[int, int]) -> None:
    """A disc's bitmap keeps its centre and area to a tenth of a pixel and a hundredth."""
    rows, columns = np.mgrid[:97, :131]
    disc = BitmapMasks(((rows - 40) ** 2 + (columns - 60) ** 2 < 900)[None].astype(np.uint8), 97, 131)
    results = TRANSFORMS.build({'type': 'centermask.Resize', 'scale': scale})({**example(131, 97), 'gt_masks': disc})
    (mask,) = results['gt_masks'].masks
    assert mask.shape == results['img_shape'] and set(np.unique(mask)) == {0, 1}
    factors = np.array(mask.shape) / (97, 131)
    centre = (np.argwhere(mask) + 0.5).mean(0)
    np.testing.assert_allclose(centre, ([40.5, 60.5]) * factors, atol=0.1)
    assert mask.sum() == pytest.approx(disc.masks.sum() * factors.prod(), rel=0.01)
