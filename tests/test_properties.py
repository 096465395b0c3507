"""Properties of any objects, boxes and masks, tested on examples that are the same in every run."""

from functools import cache

import numpy as np
import pycocotools.mask as mask_utils
import pytest
import shapely
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from centermask import CenterMaskFCOSHead, ScaleAdaptiveRoIExtractor
from centermask.datasets.rle import rle_to_polygons
from centermask.mask_pasting import encode, paste
from centermask.mask_targets import area_ratio_of_polygons, mask_iou_targets, rasterise_in_rois

few = settings(max_examples=30, derandomize=True, deadline=None, database=None)
SIZE = 28


def lengths(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most)


@st.composite
def boxes(draw: st.DrawFn, least: float, most: float, extent: float = 400) -> np.ndarray:
    """Draw x1, y1, x2, y2 with sides from ``least`` to ``most``."""
    left, top = draw(lengths(-extent / 8, extent)), draw(lengths(-extent / 8, extent))
    return np.array([left, top, left + draw(lengths(least, most)), top + draw(lengths(least, most))])


@st.composite
def outlines(draw: st.DrawFn, radius: float = 60) -> np.ndarray:
    """Draw a star-shaped polygon of 3 to 12 points around (200, 200), as a flat array."""
    count = draw(st.integers(3, 12))
    radii = draw(st.lists(lengths(radius / 2, radius), min_size=count, max_size=count))
    angles = 2 * np.pi * (np.arange(count) + draw(lengths(0, 1))) / count
    return np.stack([200 + radii * np.cos(angles), 200 + radii * np.sin(angles)], axis=1).ravel()


@st.composite
def around(draw: st.DrawFn) -> np.ndarray:
    """Draw an RoI that contains a part of such a polygon, or all of it."""
    left, top = draw(lengths(120, 190)), draw(lengths(120, 190))
    return np.array([left, top, draw(lengths(210, 280)), draw(lengths(210, 280))])


def polygon_of(outline: np.ndarray) -> shapely.Polygon:
    return shapely.Polygon(outline.reshape(-1, 2))


def centres(size: int, cells: int) -> np.ndarray:
    """Return the centres x, y of a square's cells, row by row, (cells², 2)."""
    middles = (np.arange(cells) + 0.5) * size / cells
    return np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)


# Eq. 2


@few
@given(*[st.integers(1, 1333) for _ in range(4)], st.sampled_from([(8, 16), (8, 16, 32), (8, 16, 32, 64, 128)]))
def test_eq2(width: int, height: int, roi_width: int, roi_height: int, strides: tuple[int, ...]) -> None:
    """An RoI over half of the image is on the top level, and each halving lowers the level; scale has no effect."""
    extractor = ScaleAdaptiveRoIExtractor(dict(type='RoIAlign', output_size=2, sampling_ratio=2), 1, strides)
    rois = torch.tensor([[0, 7, 3, 7 + roi_width, 3 + roi_height]], dtype=torch.float32)
    (level,) = extractor.map_roi_levels(rois, torch.tensor([float(width * height)])).tolist()
    expected = len(strides) - 1
    while expected and roi_width * roi_height * 2 ** (len(strides) - expected) <= width * height:
        expected -= 1
    assert level == expected
    assert extractor.map_roi_levels(rois * 2, torch.tensor([4.0 * width * height])).item() == level


# Mask targets


@few
@given(outlines(), around())
def test_mask_target_is_the_object_relative_to_its_roi(outline: np.ndarray, roi: np.ndarray) -> None:
    """Cells a cell's width inside the outline are set, none that far outside; shifts have no effect."""
    (mask,) = rasterise_in_rois([[outline]], roi[None], SIZE)
    framed = polygon_of(((outline.reshape(-1, 2) - roi[:2]) * SIZE / (roi[2:] - roi[:2])).ravel())
    cells = centres(SIZE, SIZE)
    inside = shapely.contains_xy(framed.buffer(-1), *cells.T).reshape(SIZE, SIZE)
    near = shapely.contains_xy(framed.buffer(1), *cells.T).reshape(SIZE, SIZE)
    assert mask[inside].all() and not mask[~near].any()
    moved = rasterise_in_rois([[outline + 64]], roi[None] + 64, SIZE)
    assert (moved != mask).sum() <= 2  # a corner on the edge between cells may round otherwise


@few
@given(outlines(), around(), lengths(0.2, 0.8), st.sampled_from([0, 1]))
def test_iou_target_against_a_fine_raster(outline: np.ndarray, roi: np.ndarray, cut: float, axis: int) -> None:
    """The IoU counts the complete object, also its part outside the RoI."""
    predicted = np.zeros((1, SIZE, SIZE), np.float32)
    edge = round(cut * SIZE)
    predicted[(0, slice(edge)) if axis else (0, slice(None), slice(edge))] = 1
    targets = rasterise_in_rois([[outline]], roi[None], SIZE)
    area_ratio = torch.tensor([area_ratio_of_polygons([outline], roi)], dtype=torch.float64)
    found = mask_iou_targets(torch.from_numpy(predicted), torch.from_numpy(targets), area_ratio).item()

    points = centres(400, 400)
    (x1, y1, x2, y2), limit = roi, roi[:2] + (roi[2:] - roi[:2]) * edge / SIZE
    covered = (points >= (x1, y1)).all(1) & (points < ((x2, limit[1]) if axis else (limit[0], y2))).all(1)
    held = shapely.contains_xy(polygon_of(outline), *points.T)
    assert found == pytest.approx((covered & held).sum() / (covered | held).sum(), abs=0.05)


# Boxes


STRIDES = (8, 16, 32, 64, 128)
CLASSES = 6


@cache
def _head(in_strides: bool) -> CenterMaskFCOSHead:
    return CenterMaskFCOSHead(
        CLASSES, 8, feat_channels=8, strides=STRIDES, norm_cfg=None, norm_on_bbox=in_strides, center_sampling=True
    )


@few
@given(st.lists(boxes(2, 300, 250), min_size=1, max_size=CLASSES), st.booleans())
def test_targets_decode_to_the_objects(objects: list[np.ndarray], in_strides: bool) -> None:
    """A location's target decodes to the box of its object, which contains the location and fits the level."""
    head = _head(in_strides)
    points = head.prior_generator.grid_priors([(256 // s, 256 // s) for s in STRIDES], device='cpu')
    truth = InstanceData(bboxes=torch.tensor(np.array(objects), dtype=torch.float32), labels=torch.arange(len(objects)))
    labels, distances = head.get_targets(points, [truth])
    for level, stride, level_labels, targets in zip(points, STRIDES, labels, distances, strict=True):
        positive = level_labels < CLASSES
        left_top, right_bottom = (targets[positive] * (stride if in_strides else 1)).split(2, dim=1)
        decoded = torch.cat([level[positive] - left_top, level[positive] + right_bottom], dim=1)
        torch.testing.assert_close(decoded, truth.bboxes[level_labels[positive]], atol=1e-3, rtol=0)
        assert (left_top > 0).all() and (right_bottom > 0).all()
        size = torch.cat([left_top, right_bottom], dim=1).amax(1) if positive.any() else torch.tensor([stride * 6.0])
        low, high = head.regress_ranges[STRIDES.index(stride)]
        assert (size >= low - 1e-3).all() and (size <= high + 1e-3).all()
        middles = (decoded[:, :2] + decoded[:, 2:]) / 2
        assert ((level[positive] - middles).abs() < 1.5 * stride + 1e-3).all()


# Pasting


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    """Draw an ellipse of probabilities that fall from its centre, 28×28."""
    middle = [draw(lengths(11, 17)) for _ in range(2)]
    radii = [draw(lengths(5, 10)) for _ in range(2)]
    distance = np.linalg.norm((centres(SIZE, SIZE) - middle) / radii, axis=1).reshape(SIZE, SIZE)
    return np.clip(1.5 - distance, 0, 1).astype(np.float32)


@few
@given(blobs(), boxes(20, 150, 100), st.sampled_from(['sampled', 'resized']))
def test_pasted_and_cropped_again(blob: np.ndarray, box: np.ndarray, pasting: str) -> None:
    """A mask that is pasted into an image and cropped by its box is the same, where the box lies in the image."""
    height, width = 220, 240
    how = (blob[None], box[None].astype(np.float32), (height, width), 0.5, pasting)
    (pasted,), (encoded,) = paste(*how), encode(*how)
    assert encoded == mask_utils.encode(np.asfortranarray(pasted, np.uint8))
    polygons = rle_to_polygons(encoded)
    x, y = (box[:2] + centres(SIZE, SIZE) * (box[2:] - box[:2]) / SIZE).T
    inside = ((x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)).reshape(SIZE, SIZE)
    assume(polygons and inside.sum() > 30)
    (seen,) = rasterise_in_rois([polygons], box[None], SIZE)
    sure = abs(blob - 0.5) > (0.35 if pasting == 'sampled' else 0.45)  # further than a pixel of the image from the edge
    assert ((seen > 0.5) == (blob > 0.5))[inside & sure].all()
    rows, columns = pasted.nonzero()
    assert columns.min() >= box[0] - 1.5 and columns.max() <= box[2] + 1 and rows.min() >= box[1] - 1.5
