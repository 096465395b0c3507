"""Masks of ShapeMask's boxes, read in the frame of the outer boxes."""

from __future__ import annotations

import torch
from torch import Tensor


def resample_in_outer_boxes(masks: Tensor, boxes: Tensor, outer: Tensor) -> Tensor:
    """Return masks of the outer boxes, (N, size, size), from masks of the boxes of the same size.

    Masks are interpolated bilinearly and are 0 outside their boxes. Positions begin at the corners of the boxes: where
    both boxes are the same, so are both masks. An empty box has its first pixel everywhere.

    Args:
        masks: shape (N, size, size).
        boxes, outer: x1, y1, x2, y2 in the same pixels, shape (N, 4).
    """
    size = masks.shape[-1]
    sides = boxes[:, 2:] - boxes[:, :2] + 1e-8
    starts = (outer[:, :2] - boxes[:, :2]) * size / sides
    steps = (outer[:, 2:] - outer[:, :2]) / sides
    cells = torch.arange(size, dtype=masks.dtype, device=masks.device)
    positions = starts[:, :, None] + steps[:, :, None] * cells  # (N, 2, size), of x and y, in cells of the masks
    weights = (1 - (positions[..., None] - cells).abs()).clamp(min=0)  # (N, 2, size, size)
    across, down = weights.unbind(1)
    return down @ masks @ across.transpose(1, 2)
