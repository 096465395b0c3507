"""Layers that compute a detector's predictions in less time; they cannot train.

BN is folded into the convs and features lie in channels-last memory. On a CPU, convs are :class:`ReorderedConv` or
:class:`WinogradConv`. ``torch.compile`` with freezing is as fast as the former, but the first image waits for minutes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from mmcv.cnn.bricks.wrappers import Conv2d
from mmcv.cnn.utils import fuse_conv_bn
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, RoIAlign, RoIPool
from torch import Tensor, nn

from centermask.fast.reordered_conv import ReorderedConv, suits_onednn
from centermask.fast.roi_align import FusedRoIExtractor
from centermask.fast.winograd import WinogradConv, suits_winograd
from centermask.scale_adaptive_roi_extractor import ScaleAdaptiveRoIExtractor

# MMCV's operators that misread channels-last memory.
CONTIGUOUS_ONLY = (DeformConv2d, ModulatedDeformConv2d, RoIAlign, RoIPool)


def fuse_for_inference(model: Any, dtype: torch.dtype | None = None) -> Any:
    """Fuse the layers of any model of MMDetection in place and return it. It cannot train afterwards.

    Args:
        model: in eval mode.
        dtype: ``torch.bfloat16`` or ``torch.float16`` for the network in half precision. A CenterMask still returns
            results in single precision.
    """
    with torch.no_grad():
        fuse_conv_bn(model)
        model.to(memory_format=torch.channels_last)
        for name, child in model.named_children():
            if dtype is not None and name != 'data_preprocessor':
                child.to(dtype)
        return _fuse(model, dtype is not None)


def half_type(device: torch.device) -> torch.dtype:
    """Return the half precision that a device computes fast: bfloat16 on a CPU, float16 on a GPU."""
    return torch.bfloat16 if device.type == 'cpu' else torch.float16


def _fuse(module: Any, half: bool) -> Any:
    """Return a module that computes the same on channels-last features, in half precision if ``half``."""
    if type(module) is ScaleAdaptiveRoIExtractor:
        return FusedRoIExtractor(module)
    if isinstance(module, CONTIGUOUS_ONLY):
        return _with_contiguous_inputs(module, single_precision=half)
    if suits_onednn(module):
        return WinogradConv(module) if suits_winograd(module) else ReorderedConv(module)
    if type(module) in (nn.Conv2d, Conv2d) and half:
        return _Cast(module)
    for name, child in module.named_children():
        if name != 'conv_logits':  # the mask head reads its weights, for one class an RoI
            module._modules[name] = _fuse(child, half)
    return module


def _with_contiguous_inputs(operator: Any, single_precision: bool) -> Any:
    """Let an operator of ``CONTIGUOUS_ONLY`` take features of any memory format, and of any type."""
    operator.to(memory_format=torch.contiguous_format)
    if single_precision:
        operator.float()
    operator.forward = functools.partial(_call_contiguous, operator.forward, single_precision)
    return operator


def _call_contiguous(forward: Callable[..., Tensor], single_precision: bool, *inputs: Tensor) -> Tensor:
    copies = ((tensor.float() if single_precision else tensor).contiguous() for tensor in inputs)
    return forward(*copies).to(inputs[0].dtype)


class _Cast(nn.Module):
    """A conv in half precision that takes features of any type."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.to(self.conv.weight.dtype))
