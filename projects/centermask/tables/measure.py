"""Parameters and operations of a config's model."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from mmcv.ops import modulated_deform_conv
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from centermask.roi_head import CenterMaskRoIHead
from centermask.utils.errors import config_errors


def build(config: Config, device: str = 'meta') -> nn.Module:
    """Build a config's model for testing with random weights, by default without memory.

    Raises:
        InputError: a class, an argument or a value in the config doesn't exist.
    """
    model = dict(config.model, backbone=dict(config.model.backbone, init_cfg=None))
    with config_errors(config.filename), torch.device(device), DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(model).eval()


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters as the paper counts them: without those of BN."""
    of_norms = {id(p) for module in model.modules() if isinstance(module, _BatchNorm) for p in module.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in of_norms)


def input_size(config: Config) -> tuple[int, int]:
    """Return height and width of the largest test image in landscape, before it is padded."""
    (scale,) = [t['scale'] for t in config.test_dataloader.dataset.pipeline if t['type'].endswith('Resize')]
    return min(scale), max(scale)


def padded_size(config: Config) -> tuple[int, int]:
    """Return height and width of :func:`input_size` as the model gets it."""
    divisor = config.model.data_preprocessor.get('pad_size_divisor', 1)
    height, width = (-(-side // divisor) * divisor for side in input_size(config))
    return height, width


def count_flops(config: Config) -> int:
    """Return the floating-point operations of one image, a multiplication and an addition counted as two.

    Counted are convolutions and matrix products, by torch: backbone, neck and dense heads on one image of
    :func:`input_size`, padded as in testing, and the heads of RoIs on as many as testing allows. Not counted are norms,
    activations, pooling (also RoIAlign), NMS and the pasting of masks; a deformable convolution counts as an ordinary
    one and the convolution of its offsets.
    """
    model: Any = build(config)
    image = torch.empty(1, 3, *padded_size(config), device='meta')
    with torch.no_grad(), FlopCounterMode(display=False) as counter, plain_deformable_convs():
        levels = model.extract_feat(image)
        for head in ('rpn_head', 'bbox_head'):
            if hasattr(model, head):
                getattr(model, head)(levels)
        if hasattr(model, 'mask_head'):  # YOLACT's
            model.mask_head.protonet(levels[0])
        if getattr(model, 'roi_head', None) is not None:
            _forward_rois(model)
    return counter.get_total_flops()


def _forward_rois(model: Any) -> None:
    """Forward the heads of RoIs, with features of as many RoIs as the test settings allow."""
    head, settings = model.roi_head, model.test_cfg
    if head.with_bbox:
        head.bbox_head(_features_of_rois(head.bbox_roi_extractor, settings['rpn']['max_per_img']))
    features = _features_of_rois(head.mask_roi_extractor, settings.get('rcnn', settings)['max_per_img'])
    if isinstance(head, CenterMaskRoIHead):
        head.heads(features, torch.zeros(len(features), dtype=torch.long, device='meta'))
    else:
        head.mask_head(features)


def _features_of_rois(extractor: Any, rois: int) -> Tensor:
    return torch.empty(rois, extractor.out_channels, *extractor.roi_layers[0].output_size, device='meta')


def plain_deformable_convs() -> AbstractContextManager:
    """MMCV's deformable convolution can't run without memory, and torch's counter doesn't know it."""

    def plain(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        stride, padding, dilation, groups = rest[:4]
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    return patch.object(modulated_deform_conv, 'modulated_deform_conv2d', plain)
