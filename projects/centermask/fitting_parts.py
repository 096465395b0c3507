"""Checks that the parts of a detector fit each other, each being right by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.models.backbones import ResNet, ResNeXt
from torch import nn

from .arguments import refuse, whole_numbers


def check_parts(backbone: nn.Module, neck: Any, box_head: Any, roi_head: Any, train_cfg: dict | None) -> None:
    """Check that each part of a :class:`CenterMask` takes what another gives, as far as they say so.

    Raises:
        ValueError: one doesn't.
    """
    levels = getattr(neck, 'in_channels', None)
    if isinstance(levels, list | tuple):
        whole_numbers('CenterMask', {'neck.start_level': getattr(neck, 'start_level', 0)}, 0, len(levels) - 1)
    for name, value, other, wanted in _pairs(backbone, neck, box_head, roi_head, train_cfg or {}):
        if value is not None and wanted is not None and value != wanted:
            refuse('CenterMask', name, f'is {wanted!r} by {other}', value)


def _pairs(
    backbone: Any, neck: Any, box_head: Any, roi_head: Any, train_cfg: dict
) -> Iterator[tuple[str, Any, str, Any]]:
    """An argument and its value, what else it is bound by and the value by that; None where a part doesn't say."""
    strides = [width for width, _ in box_head.prior_generator.strides]
    channels = getattr(neck, 'out_channels', None)
    yield 'neck.in_channels', getattr(neck, 'in_channels', None), 'the outputs of the backbone', _widths(backbone)
    yield 'neck.num_outs', getattr(neck, 'num_outs', None), 'the number of bbox_head.strides', len(strides)
    yield 'bbox_head.in_channels', box_head.in_channels, 'neck.out_channels', channels
    if roi_head is None:
        return
    extractor, masks, scoring = roi_head.mask_roi_extractor, roi_head.mask_head, roi_head.mask_iou_head
    levels, size, scale = extractor.featmap_strides, extractor.roi_layers[0].output_size[0], masks.scale_factor
    place = 'roi_head.mask_roi_extractor'
    pooled = f'{place}.roi_layer.output_size'
    yield f'{place}.featmap_strides', levels, 'the first of bbox_head.strides', strides[: len(levels)]
    yield f'{place}.out_channels', extractor.out_channels, 'neck.out_channels', channels
    yield 'roi_head.mask_head.in_channels', masks.in_channels, 'neck.out_channels', channels
    yield 'train_cfg.mask_size', train_cfg.get('mask_size'), f'{scale} times {pooled}', scale and scale * size
    if scoring is not None:
        yield 'roi_head.mask_iou_head.in_channels', scoring.in_channels, 'neck.out_channels', channels
        yield 'roi_head.mask_head.upsample_cfg.scale_factor', scale, 'roi_head.mask_iou_head, which halves masks', 2


def _widths(backbone: Any) -> list[int] | None:
    """Channels of a backbone's outputs; None where they aren't known."""
    if type(backbone) in (ResNet, ResNeXt):  # not what is built of them
        return [backbone.feat_dim >> (backbone.num_stages - 1 - i) for i in backbone.out_indices]
    return getattr(backbone, 'widths', None)
