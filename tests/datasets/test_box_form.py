"""Boxes in another form than COCO's, found by their outlines."""

from __future__ import annotations

import numpy as np
import pytest

from centermask.datasets.box_form import find_box_form

RNG = np.random.default_rng(0)
SIZES = RNG.integers(200, 900, (40, 2)).astype(float)
SIDES = RNG.uniform(0.05, 0.4, (40, 2)) * SIZES
OUTLINES = np.hstack([RNG.uniform(0, 1, (40, 2)) * (SIZES - SIDES), SIDES])
X1, Y1, W, H = OUTLINES.T
ACROSS = np.hstack([SIZES, SIZES])
CORNERS = np.stack([X1, Y1, X1 + W, Y1 + H], axis=1)
CENTRES = np.stack([X1 + W / 2, Y1 + H / 2, W, H], axis=1)


@pytest.mark.parametrize(
    ('boxes', 'words'),
    [
        (CORNERS, 'as corners (x1, y1, x2, y2)'),
        (CORNERS.round(), 'as corners (x1, y1, x2, y2)'),
        (CENTRES, 'as centres (x and y of the centre, width, height)'),
        (OUTLINES[:, [1, 0, 3, 2]], 'as y, x, height and width'),
        (CORNERS[:, [1, 0, 3, 2]], 'as corners with y first (y1, x1, y2, x2)'),
        (OUTLINES / ACROSS, 'as x, y, width and height, from 0 to 1 across the image'),
        (CENTRES / ACROSS, 'as centres (x and y of the centre, width, height), from 0 to 1 across the image'),
        (CORNERS / ACROSS * 1000, 'as corners (x1, y1, x2, y2), from 0 to 1000 across the image'),
        (OUTLINES * 2, 'as x, y, width and height, 2 times as wide and 2 times as high as the outlines'),
        (
            CORNERS * [0.5, 2, 0.5, 2],
            'as corners (x1, y1, x2, y2), 0.5 times as wide and 2 times as high as the outlines',
        ),
    ],
)
def test_form(boxes: np.ndarray, words: str) -> None:
    form = find_box_form(boxes, OUTLINES, SIZES)
    assert ' of 40 boxes do not fit their outlines and would ' in str(form) and str(form).endswith(words)
    assert form.everywhere
    np.testing.assert_allclose(form.to_coco(boxes, SIZES), OUTLINES, atol=1)


def test_scale_of_each_image() -> None:
    form = find_box_form(OUTLINES * np.tile(RNG.uniform(1.3, 4, (40, 1)), 4), OUTLINES, SIZES)
    assert 'as if the images had been resized' in str(form)
    assert np.isnan(form.to_coco(OUTLINES, SIZES)).all()


def test_part_of_the_boxes() -> None:
    boxes = np.where(np.arange(40)[:, None] < 10, CORNERS, OUTLINES)
    form = find_box_form(boxes, OUTLINES, SIZES)
    assert form.order == 'corners (x1, y1, x2, y2)' and not form.everywhere and form.wrong <= 10


@pytest.mark.parametrize(
    'boxes',
    [
        OUTLINES,
        OUTLINES * [1, 1, 1.2, 1.2],  # loose
        np.where(np.arange(40)[:, None] < 3, CORNERS, OUTLINES),  # single mistakes
        np.hstack([OUTLINES[:, :2] + 50, OUTLINES[:, 2:] * 2]),  # wrong, but not in a way that is known
        np.zeros((40, 4)),
    ],
    ids=['right', 'loose', 'few', 'otherwise', 'empty'],
)
def test_no_form(boxes: np.ndarray) -> None:
    assert find_box_form(boxes, OUTLINES, SIZES) is None


def test_one_object() -> None:
    assert find_box_form(CORNERS[:1], OUTLINES[:1], SIZES[:1]).order == 'corners (x1, y1, x2, y2)'
    assert find_box_form(OUTLINES[:0], OUTLINES[:0], SIZES[:0]) is None
