"""Masks of results run-length encoded, without a mask of the image's size for each."""

from __future__ import annotations

from torch import nn

from centermask.baselines.bipyramid_mask_head import BipyramidMaskHead
from centermask.baselines.shapemask_roi_head import ShapeMaskRoIHead
from centermask.roi_head import CenterMaskRoIHead

HEADS = (CenterMaskRoIHead, BipyramidMaskHead, ShapeMaskRoIHead)


def give_rle_masks(detector: nn.Module) -> None:
    """Let a detector return :class:`RLEMasks` where it can and its ``test_cfg.mask_format`` says nothing."""
    for head in (getattr(detector, 'roi_head', None), getattr(detector, 'mask_head', None)):
        if isinstance(head, HEADS):
            head.test_cfg.setdefault('mask_format', 'rle')
