"""Masks of 28×28 cells in an image: which pixels they cover."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from centermask.mask_pasting import paste_exact, paste_rounded

FULL = torch.ones(1, 28, 28)


def _rows_and_columns(mask: Tensor) -> tuple[list[int], list[int]]:
    """First and last row, first and last column of a mask that must be a full rectangle."""
    rows, columns = mask.any(1).nonzero().squeeze(1).tolist(), mask.any(0).nonzero().squeeze(1).tolist()
    assert mask.sum().item() == len(rows) * len(columns)
    return [rows[0], rows[-1]], [columns[0], columns[-1]]


@pytest.mark.parametrize(
    'box, rows, columns',
    [
        ((2, 3, 6, 8), [3, 7], [2, 5]),
        ((2.4, 3, 6.6, 8), [3, 7], [2, 6]),  # the centre of a pixel decides
        ((2.6, 3, 6.4, 8), [3, 7], [3, 5]),
        ((2.5, 3, 6.5, 8), [3, 7], [2, 6]),  # half of the threshold's cell: just enough
        ((0, 0, 12, 10), [0, 9], [0, 11]),
        ((-4, -5, 4, 5), [0, 4], [0, 3]),  # what lies outside the image is cut
        ((8, 6, 20, 30), [6, 9], [8, 11]),
    ],
)
def test_exact(box: tuple[float, ...], rows: list[int], columns: list[int]) -> None:
    masks = paste_exact(FULL, torch.tensor([box]), (10, 12), 0.5)
    assert masks.shape == (1, 10, 12) and masks.dtype == torch.bool
    assert _rows_and_columns(masks[0]) == (rows, columns)


@pytest.mark.parametrize(
    'box, rows, columns',
    [
        # With the margin of a cell: 1.86, 2.82, 6.14, 8.18, rounded down, the last pixel included.
        ((2, 3, 6, 8), [2, 8], [1, 6]),
        ((0, 0, 11, 9), [0, 9], [0, 11]),
        ((8, 6, 20, 30), [6, 9], [7, 11]),  # at 7.57, 5.14: row 5 holds less than half of the margin's cell
    ],
)
def test_rounded(box: tuple[float, ...], rows: list[int], columns: list[int]) -> None:
    masks = paste_rounded(FULL, torch.tensor([box], dtype=torch.float32), (10, 12), 0.5)
    assert masks.shape == (1, 10, 12) and masks.dtype == torch.bool
    assert _rows_and_columns(masks[0]) == (rows, columns)


def test_a_pixel_at_the_threshold() -> None:
    """It belongs to the object in the star recipe and doesn't in the paper recipe."""
    half, box = FULL / 2, torch.tensor([[2.0, 3, 6, 8]])
    assert paste_exact(half, box, (10, 12), 0.5).any()
    assert not paste_rounded(half, box, (10, 12), 0.5).any()
    assert paste_rounded(half, box, (10, 12), 0.49).any()


@pytest.mark.parametrize('paste', [paste_exact, paste_rounded])
def test_mask_is_the_right_way_round(paste: Callable) -> None:
    """Probability in the upper left quarter only."""
    quarter = torch.zeros(1, 28, 28)
    quarter[:, :14, :14] = 1
    mask = paste(quarter, torch.tensor([[4.0, 6, 44, 66]]), (80, 50), 0.5)[0]
    assert mask[8:34, 6:22].all()
    assert not mask[40:].any() and not mask[:, 28:].any()


@pytest.mark.parametrize('paste', [paste_exact, paste_rounded])
def test_several_masks(paste: Callable) -> None:
    boxes = torch.tensor([[2.0, 2, 10, 10], [20, 20, 30, 40]])
    both = paste(torch.stack([FULL[0], FULL[0] * 0.7]), boxes, (50, 50), 0.5)
    for mask, box in zip(both, boxes, strict=True):
        assert torch.equal(mask, paste(FULL, box[None], (50, 50), 0.5)[0])


@pytest.mark.parametrize('paste', [paste_exact, paste_rounded])
def test_no_masks(paste: Callable) -> None:
    assert paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 12), 0.5).shape == (0, 10, 12)


def test_rounded_box_without_area() -> None:
    """It covers the pixel in which it lies at most."""
    assert paste_rounded(FULL, torch.tensor([[3.2, 4.2, 3.2, 4.2]]), (10, 12), 0.5).sum().item() <= 1
