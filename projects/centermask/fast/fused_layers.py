"""Layers that compute a detector's predictions in less time; they cannot train.

BN is folded into the convs and features lie in channels-last memory. On a CPU, convs read weights that oneDNN has
reordered once. This takes a private operator of torch, without which the convs stay torch's own: the same numbers, 3 to
5 % more time an image. ``torch.compile`` with freezing is as fast, but the first image waits for minutes.
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

from centermask.fast.roi_align import FusedRoIExtractor
from centermask.scale_adaptive_roi_extractor import ScaleAdaptiveRoIExtractor

# MMCV's operators that misread channels-last memory.
CONTIGUOUS_ONLY = (DeformConv2d, ModulatedDeformConv2d, RoIAlign, RoIPool)

NO_ACTIVATION = 'none'  # oneDNN's name


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
    if _suits_onednn(module):
        return ReorderedConv(module)
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


@functools.cache
def has_onednn_operators(dtype: torch.dtype) -> bool:
    """Return whether torch has the operators of :class:`ReorderedConv` and this CPU runs them in a precision."""
    try:
        ReorderedConv(nn.Conv2d(1, 1, 1).to(dtype))(torch.zeros(1, 1, 1, 1, dtype=dtype))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def _suits_onednn(module: nn.Module) -> bool:
    return (
        type(module) in (nn.Conv2d, Conv2d)
        and module.weight.device.type == 'cpu'
        and module.weight.dtype in (torch.float32, torch.bfloat16)
        and module.padding_mode == 'zeros'
        and not isinstance(module.padding, str)
        and has_onednn_operators(module.weight.dtype)
    )


class ReorderedConv(nn.Module):
    """A conv by oneDNN that reads its weight in oneDNN's order.

    Args:
        conv: with padding by zeros, on a CPU.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.out_channels = conv.out_channels
        self.reordered: tuple[tuple[torch.Size, int], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return conv(x), shape (N, C, H, W), for an input of any type."""
        # Both conversions at once would take twice as long.
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._weight_for(x), self.bias, *self.geometry, NO_ACTIVATION, [], ''
        )

    def _weight_for(self, x: Tensor) -> Tensor:
        """Return the weight in oneDNN's order for inputs of the first input's shape, and as it is for others.

        The order for another shape gives the right result too, but oneDNN often reorders it again at every call, which
        takes several times as long as the conv.
        """
        situation = (x.shape, torch.get_num_threads())
        if self.reordered is None:
            weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, list(x.shape))
            self.reordered = situation, weight
        return self.reordered[1] if situation == self.reordered[0] else self.weight
