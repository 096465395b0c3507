"""Masks outlined as polygons, and the polygons drawn again."""

from __future__ import annotations

import cv2
import numpy as np
import pycocotools.mask as mask_utils
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from centermask.datasets.rle import rle_to_polygons
from centermask.structures.rle_masks import run_lengths


def encode(mask: np.ndarray) -> dict:
    return mask_utils.encode(np.asfortranarray(mask, np.uint8))


def uncompressed(mask: np.ndarray) -> dict:
    """COCO's plain form: lengths of runs of 0 and 1 in turn, down the columns, the first of 0."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    return {'size': list(mask.shape), 'counts': np.diff([0, *edges, flat.size]).tolist()}


def draw(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    return mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(polygons, height, width)))


def signed_area(polygon: np.ndarray) -> float:
    x, y = polygon[0::2], polygon[1::2]
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def ring() -> np.ndarray:
    mask = np.zeros((40, 50), np.uint8)
    mask[5:35, 10:40] = 1
    mask[12:20, 15:30] = 0
    mask[25:26, 20:21] = 0
    mask[14:17, 18:22] = 1  # an island in the first hole
    return mask


MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=25), elements=st.integers(0, 1))
BLOBS = [cv2.GaussianBlur(np.random.default_rng(i).random((60, 70)), (0, 0), 3) > 0.5 for i in range(3)]


def check_round_trip(mask: np.ndarray) -> None:
    text = {**encode(mask), 'counts': encode(mask)['counts'].decode()}
    for rle in (encode(mask), text, uncompressed(mask)):
        assert run_lengths(rle) == uncompressed(mask)['counts']
        polygons = rle_to_polygons(rle)
        assert all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)
        assert np.array_equal(draw(polygons, *mask.shape), mask) if polygons else not mask.any()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(MASKS)
def test_polygons_draw_the_mask_again(mask: np.ndarray) -> None:
    check_round_trip(mask)


@pytest.mark.parametrize('mask', [*BLOBS, ring(), np.eye(20)], ids=[*('blobs',) * 3, 'ring', 'diagonal'])
def test_polygons_of_larger_masks_draw_them_again(mask: np.ndarray) -> None:
    check_round_trip(np.ascontiguousarray(mask, np.uint8))


def test_hole_is_left_out_of_the_area_and_of_resized_drawings() -> None:
    mask = ring()
    polygons = rle_to_polygons(encode(mask))
    assert len(polygons) == 2, 'the outline with its two holes, and the island'
    # Corners of holes are cut by an eighth of a pixel each.
    assert abs(sum(map(signed_area, polygons))) == pytest.approx(mask.sum(), abs=1.01)

    for scale in (0.7, 1.37, 2.6):
        height, width = round(40 * scale), round(50 * scale)
        drawn = draw([polygon * scale for polygon in polygons], height, width)
        expected = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        assert (drawn & expected).sum() / (drawn | expected).sum() > 0.9


def test_thin_part_keeps_its_width() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[10:20, 5:15] = 1
    mask[15, 15:28] = 1
    drawn = draw([polygon * 3 for polygon in rle_to_polygons(encode(mask))], 90, 90)
    assert drawn[45:48, 50:80].all()
    assert not drawn[48:50, 50:80].any()
