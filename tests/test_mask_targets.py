"""Mask targets, area ratios and IoU targets of polygons with known results, and those of the released code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures.mask import PolygonMasks

from centermask import MaskScoringHead, SAGMaskHead
from centermask.mask_targets import (
    area_ratio_of_first_polygon,
    area_ratio_of_polygons,
    has_outline,
    mask_iou_targets,
    rasterise_in_rois,
)

IMAGE = (64, 64)


def _square(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([left, top, right, top, right, bottom, left, bottom], np.float64)


WHOLE = [_square(10, 10, 20, 20)]
TWO = [_square(10, 10, 20, 20), _square(30, 10, 40, 20)]


def _bitmap(polygons: list[np.ndarray], height: int = 64, width: int = 64) -> np.ndarray:
    return PolygonMasks([polygons], height, width).to_bitmap().masks[0].astype(np.uint8)


def _mask(polygons: list[np.ndarray], *roi: float) -> np.ndarray:
    return rasterise_in_rois([polygons], np.array([roi], np.float64), 28)[0]


def test_object_fills_its_roi() -> None:
    assert (_mask(WHOLE, 10, 10, 20, 20) == 1).all()


def test_object_in_a_larger_roi() -> None:
    mask = _mask(WHOLE, 10, 10, 30, 50)  # the left half and the upper quarter
    assert (mask[:7, :14] == 1).all()
    assert mask.sum() == 7 * 14


def test_object_cut_by_its_roi() -> None:
    mask = _mask(WHOLE, 15, 10, 25, 20)
    assert (mask[:, :14] == 1).all()
    assert mask.sum() == 28 * 14


def test_several_polygons() -> None:
    mask = _mask(TWO, 10, 10, 40, 20)
    assert mask[:, :9].all() and not mask[:, 10:18].any() and mask[:, 19:].all()


def test_overlapping_polygons_count_once() -> None:
    mask = _mask([_square(10, 10, 20, 20), _square(10, 10, 20, 20)], 10, 10, 30, 20)
    assert set(np.unique(mask)) == {0, 1}
    assert mask.sum() == 28 * 14


def test_roi_beside_the_object() -> None:
    assert not _mask(WHOLE, 30, 30, 40, 40).any()


def test_roi_beyond_the_image_is_not_clipped() -> None:
    mask = _mask([_square(0, 0, 10, 10)], -10, -10, 10, 10)
    assert mask[14:, 14:].all()
    assert mask.sum() == 14 * 14


def test_roi_without_width() -> None:
    """An RoI without width counts as 0.1 pixel wide."""
    assert _mask(WHOLE, 19.5, 10, 19.5, 20).all()
    assert not _mask(WHOLE, 25, 10, 25, 20).any()


def test_no_rois() -> None:
    assert rasterise_in_rois([], np.zeros((0, 4)), 28).shape == (0, 28, 28)


@pytest.mark.parametrize(
    'polygons, roi, exact, first',
    [
        (WHOLE, (10, 10, 20, 20), 1.0, 1.0),
        (WHOLE, (0, 0, 60, 60), 1.0, 1.0),
        (WHOLE, (15, 10, 25, 20), 0.5, 0.5),
        (WHOLE, (15, 15, 25, 25), 0.25, 0.25),
        (WHOLE, (30, 30, 40, 40), 0.0, 0.0),
        (TWO, (10, 10, 40, 20), 1.0, 1.0),
        (TWO, (10, 10, 20, 20), 0.5, 1.0),
        (TWO, (30, 10, 40, 20), 0.5, 0.0),
        (TWO, (15, 10, 35, 20), 0.5, 0.5),
        (TWO[::-1], (10, 10, 20, 20), 0.5, 0.0),
    ],
)
def test_area_ratio(polygons: list[np.ndarray], roi: tuple[int, ...], exact: float, first: float) -> None:
    box = np.array(roi, np.float64)
    assert area_ratio_of_polygons(polygons, box) == exact
    assert area_ratio_of_first_polygon(polygons, box, IMAGE) == first


@pytest.mark.parametrize('roi, part', [((10, 10, 40, 20), 1), ((10, 10, 20, 20), 0.5), ((-5, 15, 15, 90), 0.125)])
def test_area_ratio_of_a_bitmap(roi: tuple[int, ...], part: float) -> None:
    """A bitmap has no first polygon: both recipes count all of its pixels."""
    box = np.array(roi, np.float64)
    assert area_ratio_of_polygons(_bitmap(TWO), box) == part
    assert area_ratio_of_first_polygon(_bitmap(TWO), box, IMAGE) == part


def test_bitmaps_as_polygons() -> None:
    """Targets of triangles in RoIs around and across them, also beyond the image, whose sides are odd."""
    height, width = 151, 203
    rng = np.random.default_rng(0)
    objects, rois = [], []
    for corners in rng.uniform(0, [width - 1, height - 1], (150, 3, 2)):
        if abs(np.linalg.det(corners[1:] - corners[0])) < 1000:  # a thin one, of which a bitmap keeps little
            continue
        objects.append([corners.ravel()])
        start, end = corners.min(0), corners.max(0)
        rois.append([*(start - rng.uniform(-0.3, 0.3, 2) * (end - start)), *(end + rng.uniform(-0.3, 0.3, 2) * 20)])
    bitmaps, boxes = [_bitmap(polygons, height, width) for polygons in objects], np.array(rois)
    different = rasterise_in_rois(bitmaps, boxes, 28) != rasterise_in_rois(objects, boxes, 28)
    assert different.mean() < 0.02
    for ratio in (area_ratio_of_polygons, lambda mask, roi: area_ratio_of_first_polygon(mask, roi, (height, width))):
        of_bitmaps, of_polygons = (
            [ratio(*pair) for pair in zip(masks, boxes, strict=True)] for masks in (bitmaps, objects)
        )
        np.testing.assert_allclose(of_bitmaps, of_polygons, atol=0.06)


@pytest.mark.parametrize(
    'mask, outlined',
    [
        (WHOLE, True),
        (_bitmap(WHOLE), True),
        ([np.zeros(6)], False),
        ([np.array([10.1, 10.3, 20.7, 17.7, 10.1, 10.3])], False),
        ([np.zeros(6), *WHOLE], True),
        (np.zeros((7, 5), np.uint8), False),
    ],
)
def test_outline(mask: list[np.ndarray] | np.ndarray, outlined: bool) -> None:
    assert has_outline(mask) == outlined


def test_area_ratio_is_at_most_1() -> None:
    """A square of 1.4² pixels covers four of them when rasterised."""
    assert area_ratio_of_polygons([_square(10.3, 10.3, 11.7, 11.7)], np.array([0.0, 0, 60, 60])) == 1.0


@pytest.mark.parametrize('box', [(10, 10, 10.5, 20), (100, 10, 120, 20), (10, 100, 20, 120)])
def test_area_ratio_without_a_pixel(box: tuple[float, ...]) -> None:
    """RoIs thinner than a pixel, and polygon and RoI outside the image: nothing is inside."""
    roi = np.array(box, np.float64)
    outside = [_square(*roi)]
    assert area_ratio_of_polygons(WHOLE, roi) == 0.0
    for polygons in (WHOLE, outside) if roi.max() > 64 else (WHOLE,):
        assert area_ratio_of_first_polygon(polygons, roi, IMAGE) == 0.0


def test_area_ratio_of_an_object_without_area() -> None:
    line = [np.array([10, 10, 20, 10, 15, 10], np.float64)]
    assert area_ratio_of_polygons(line, np.array([0.0, 0, 60, 60])) == 0.0
    assert area_ratio_of_first_polygon(line, np.array([0.0, 0, 60, 60]), IMAGE) == 0.0


def test_iou_targets() -> None:
    predicted, target = torch.zeros(2, 28, 28)
    predicted[0, :2] = 1
    target[0, 1:3] = 1
    # Two pixels each, one in common. Inside the RoI lies all of the object, half of it, nothing.
    ious = mask_iou_targets(predicted.expand(3, -1, -1), target.expand(3, -1, -1), torch.tensor([1.0, 0.5, 0.0]))
    assert ious.tolist() == pytest.approx([1 / 3, 1 / 5, 0])
    assert ious.dtype == torch.float32


@pytest.mark.parametrize('area_ratio', [0.0, 1.0])
def test_iou_target_of_empty_masks(area_ratio: float) -> None:
    assert mask_iou_targets(*torch.zeros(2, 1, 28, 28), torch.tensor([area_ratio])).tolist() == [0]
    assert mask_iou_targets(*torch.zeros(2, 0, 28, 28), torch.zeros(0)).shape == (0,)


def test_iou_target_of_an_object_cut_by_its_roi() -> None:
    """A perfect mask in an RoI with a quarter of the object has an IoU of 0.25."""
    roi = np.array([15.0, 15, 25, 25])
    target = torch.from_numpy(rasterise_in_rois([WHOLE], roi[None], 28))
    for area_ratio in (area_ratio_of_polygons(WHOLE, roi), area_ratio_of_first_polygon(WHOLE, roi, IMAGE)):
        assert mask_iou_targets(target, target, torch.tensor([area_ratio])).item() == pytest.approx(0.25)


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_released_code(shared: Path, recipe: str) -> None:
    """Check masks, area ratios, IoU targets and losses of 32 RoIs in a real image against the released code."""
    expected = np.load(shared / 'parity/mask_targets.npz')
    polygons = json.loads((shared / 'parity/inputs.json').read_text())['gt_polygons2']
    objects = [[np.array(polygon) for polygon in polygons[i]] for i in expected['gt_index']]
    rois = expected['rois'].astype(np.float64)

    masks = rasterise_in_rois(objects, rois, 28)
    np.testing.assert_array_equal(np.packbits(masks.reshape(32, -1).astype(bool), axis=1), expected[f'{recipe}.masks'])

    small = dict(num_convs=1, in_channels=8, conv_out_channels=8)
    scoring = MaskScoringHead(**small, area_ratio='all_polygons' if recipe == 'star' else 'first_polygon')
    area_ratios = scoring.area_ratios(objects, rois, (256, 384))
    np.testing.assert_allclose(area_ratios, expected[f'{recipe}.share'], atol=1e-6)

    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((32, 28, 28), dtype=np.float32))
    targets, ratios = torch.from_numpy(masks), torch.from_numpy(area_ratios)
    np.testing.assert_allclose(mask_iou_targets(logits > 0, targets, ratios), expected[f'{recipe}.iou'], atol=1e-6)
    learned = expected[f'{recipe}.iou'] > 0
    loss = scoring.loss(torch.zeros(32), logits, targets, ratios, False)
    assert loss.item() == pytest.approx((0.5 * expected[f'{recipe}.iou'][learned] ** 2).mean(), rel=1e-5)

    one_class = torch.zeros(32, dtype=torch.long)
    loss = SAGMaskHead(**small).loss_mask(logits[:, None], targets, one_class)[0]
    assert loss.item() == pytest.approx(expected[f'{recipe}.loss'].item(), rel=1e-6)
