"""Windows of TensorMask: square boxes of two sizes at every place of every level, the frames of its masks.

All windows of an image are numbered through: level by level, row by row, column by column, then by size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .swap_align2nat import Places


class Windows(NamedTuple):
    """Where M windows of a batch lie."""

    levels: Tensor  # (M,), 0 for the finest
    sizes: Tensor  # (M,), index of the window size
    places: Places


def locate(numbers: Sequence[Tensor], level_sizes: Sequence[torch.Size], window_sizes: int) -> Windows:
    """Return where windows lie.

    Args:
        numbers: those of each image, shape (m,).
        level_sizes: height and width of each level.
        window_sizes: number of windows at a place.
    """
    number = torch.cat(tuple(numbers))
    images = torch.cat([torch.full_like(of_image, i) for i, of_image in enumerate(numbers)])
    counts = number.new_tensor([height * width * window_sizes for height, width in level_sizes])
    ends = counts.cumsum(0)
    levels = torch.bucketize(number, ends, right=True)
    number = number - (ends - counts)[levels]
    widths = number.new_tensor([width for _, width in level_sizes])[levels]
    place, sizes = number // window_sizes, number % window_sizes
    return Windows(levels, sizes, Places(images, place // widths, place % widths))
