"""Resizing, flipping and boxes by the two recipes' rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks
from PIL import Image

from centermask.datasets import FloorResize, LegacyBoxes, LegacyFlip


def example(width: int = 640, height: int = 427, seed: int = 0) -> dict:
    """A loaded picture of noise with one object, a triangle in a 100 x 50 box at (10, 20)."""
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


@pytest.mark.parametrize(
    ('width', 'height', 'scale', 'expected'),
    [
        (640, 427, (1333, 800), (1199, 800)),  # 800 * 640 / 427 = 1199.06
        (640, 480, (1333, 800), (1066, 800)),  # 1066.67, which the star recipe rounds to 1067
        (480, 640, (800, 1333), (800, 1066)),
        (640, 640, (1333, 800), (800, 800)),
        (640, 320, (1333, 800), (1332, 666)),  # 800 would make 1600: the shorter side is round(666.5) = 666
        (612, 612, (1000, 600), (600, 600)),
        (3, 7, (1000, 600), (429, 1001)),  # the longer side may pass its limit by the rounding of the shorter one
    ],
)
def test_floor_resize_sizes(width: int, height: int, scale: tuple[int, int], expected: tuple[int, int]) -> None:
    assert FloorResize.size(width, height, scale) == expected


def test_floor_resize_scales_pixels_boxes_and_polygons_alike() -> None:
    before = example(640, 480)
    picture = Image.fromarray(before['img'])
    after = FloorResize((1333, 800))(before)

    assert after['img_shape'] == after['img'].shape[:2] == (800, 1066)
    assert np.array_equal(after['img'], np.asarray(picture.resize((1066, 800), Image.Resampling.BILINEAR)))
    x, y = after['scale_factor']
    assert (x, y) == (1066 / 640, 800 / 480)
    assert torch.allclose(after['gt_bboxes'].tensor, torch.tensor([[10 * x, 20 * y, 110 * x, 70 * y]]))
    assert np.allclose(after['gt_masks'].masks[0][0], [10 * x, 20 * y, 110 * x, 20 * y, 60 * x, 70 * y])
    assert (after['gt_masks'].height, after['gt_masks'].width) == (800, 1066)


def test_test_time_augmentation_takes_floor_resize_and_inclusive_flip() -> None:
    pipeline = TRANSFORMS.build(
        {
            'type': 'TestTimeAug',
            'transforms': [
                [{'type': 'FloorResize', 'scale': (100, 60)}, {'type': 'FloorResize', 'scale': (100, 80)}],
                [{'type': 'LegacyFlip', 'prob': 1.0}, {'type': 'LegacyFlip', 'prob': 0.0}],
                [{'type': 'PackDetInputs', 'meta_keys': ('img_shape', 'scale_factor', 'flip', 'flip_offset')}],
            ],
        }
    )
    views = pipeline(example(64, 48))['data_samples']
    assert [view.img_shape for view in views] == [(60, 80), (60, 80), (75, 100), (75, 100)]
    assert [view.flip for view in views] == [True, False, True, False]
    assert {view.flip_offset for view in views} == {1}


def test_inclusive_boxes_end_at_the_last_pixel() -> None:
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


def test_inclusive_flip_maps_x_to_width_minus_x_minus_1() -> None:
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


def test_inclusive_flip_that_does_not_flip_changes_nothing() -> None:
    after = LegacyFlip(0.0)(example(200, 100))
    assert not after['flip']
    assert after['flip_offset'] == 1
    assert after['gt_bboxes'].tensor.tolist() == [[10, 20, 110, 70]]


def test_polygons_survive_the_paper_pipeline_at_float_precision(tmp_path: Path) -> None:
    Image.fromarray(example(64, 48)['img']).save(tmp_path / 'a.png')
    pipeline = Compose(
        [
            TRANSFORMS.build({'type': 'LoadImageFromFile'}),
            TRANSFORMS.build({'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True, 'poly2mask': False}),
            LegacyBoxes(),
            FloorResize((100, 80)),
            LegacyFlip(1.0),
            TRANSFORMS.build({'type': 'PackDetInputs'}),
        ]
    )
    polygon = np.array([10.5, 10.0, 30.25, 10.0, 20.0, 40.75])
    instance = {'bbox': [10.5, 10.0, 30.25, 40.75], 'bbox_label': 0, 'ignore_flag': 0, 'mask': [polygon]}
    packed = pipeline({'img_path': str(tmp_path / 'a.png'), 'height': 48, 'width': 64, 'instances': [instance]})

    gt = packed['data_samples'].gt_instances
    x, y = 100 / 64, 75 / 48
    expected = polygon.copy()
    expected[0::2] = 100 - polygon[0::2] * x - 1
    expected[1::2] *= y
    assert np.allclose(gt.masks.masks[0][0], expected, atol=1e-9)
    box = [100 - 29.25 * x - 1, 10 * y, 100 - 10.5 * x - 1, 39.75 * y]
    assert torch.allclose(gt.bboxes.tensor, torch.tensor([box]))
    assert packed['inputs'].shape == (3, 75, 100)
