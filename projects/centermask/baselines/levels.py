"""Maps of a pyramid's levels, joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def join_levels(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Return the predictions for the anchors of all levels, (N, anchors of all levels, channels).

    They are ordered by level, row, column and anchor, as MMDetection's generators order anchors.

    Args:
        maps: of the levels, shape (N, anchors of a place · channels, H, W).
        channels: of an anchor.
    """
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, channels) for level in maps], 1)
