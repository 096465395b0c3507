"""IoU of boxes that include their last pixel."""

import pytest
import torch

from centermask import LegacyBboxOverlaps2D


def test_counts_pixels() -> None:
    boxes = torch.tensor([[0, 0, 9, 9.0], [4, 4, 4, 4]])
    others = torch.tensor([[0, 0, 9, 4.0], [9, 9, 18, 18], [10, 0, 12, 9], [4, 4, 4, 4]])
    # The overlaps of 10×10 pixels are 50 of 100, 1 of 199, none, and 1 of 100.
    overlaps = LegacyBboxOverlaps2D()(boxes, others)
    assert overlaps[0].tolist() == pytest.approx([0.5, 1 / 199, 0, 0.01])
    assert overlaps[1].tolist() == pytest.approx([1 / 50, 0, 0, 1])


def test_no_boxes() -> None:
    assert LegacyBboxOverlaps2D()(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
