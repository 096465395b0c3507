"""The boxes of ShapeMask's mask branch, jittered in training, and the outer boxes that its masks lie in."""

from __future__ import annotations

import torch
from torch import Tensor

from centermask.boxes import clip_boxes

SCALE = 1.25


def outer_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return boxes (N, 4) 1.25 times as wide and high about their centres.

    They are clipped to [0, width − 1] × [0, height − 1] of the ``image_size`` (height, width).
    """
    centres, half_sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * SCALE
    boxes = torch.cat([centres - half_sides, centres + half_sides], 1)
    return clip_boxes(boxes, (image_size[0] - 1, image_size[1] - 1))


def jitter_boxes(boxes: Tensor, noise: Tensor) -> Tensor:
    """Return boxes whose centres and sides are changed by noise.

    Args:
        boxes: shape (N, 4).
        noise: of x, y, width and height, in parts of the side, shape (N, 4). A centre moves by noise · side, a side
            becomes exp(noise) times as long.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + sides / 2 + noise[:, :2] * sides
    half_sides = sides * noise[:, 2:].exp() / 2
    return torch.cat([centres - half_sides, centres + half_sides], 1)


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
    cells = torch.arange(size, dtype=boxes.dtype, device=masks.device)
    positions = starts[:, :, None] + steps[:, :, None] * cells  # (N, 2, size), of x and y, in cells of the masks
    weights = (1 - (positions[..., None] - cells).abs()).clamp(min=0)  # (N, 2, size, size)
    across, down = weights.unbind(1)
    return down @ masks.to(down.dtype) @ across.transpose(1, 2)
