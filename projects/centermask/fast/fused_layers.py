"""Layers that compute a detector's predictions in less time; they cannot train.

BN is folded into the convs and features lie in channels-last memory. On a CPU, oneDNN's convs read weights that are
reordered once, and a residual block's addition and ReLU are part of its last conv. Torch's public ways (plain convs in
channels-last memory, ``torch.compile`` with freezing) are slower on a CPU; they are what is left where torch lacks the
private operators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn.bricks.wrappers import Conv2d
from mmcv.cnn.utils import fuse_conv_bn
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, RoIAlign, RoIPool
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from centermask.fast.roi_align import FusedRoIExtractor
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
    if _suits_onednn(module):
        return FusedConv(module)
    if type(module) in (nn.Conv2d, Conv2d) and half:
        return _Cast(module)
    if _is_plain_block(module):
        return FusedBlock(module, half)
    for name, child in module.named_children():
        if name != 'conv_logits':  # the mask head reads its weights, for one class an RoI
            module._modules[name] = _fuse(child, half)
    if isinstance(module, nn.Sequential):
        for block, following in pairwise(module):
            if isinstance(block, FusedBlock) and isinstance(following, FusedBlock):
                following.owns_input = True
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
    """Return whether torch has the private operators of :class:`FusedConv` and this CPU runs them in a precision."""
    x, conv = torch.zeros(1, 1, 1, 1, dtype=dtype), FusedConv(nn.Conv2d(1, 1, 1).to(dtype), relu=True)
    try:
        conv(x)
        conv(x, x)
        conv(x, x.clone(), inplace=True)
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


class FusedConv(nn.Module):
    """A conv by oneDNN, whose operator may include an addition to the result and a ReLU.

    Args:
        conv: with padding by zeros, on a CPU.
        relu: whether to end with a ReLU.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__()
        self.weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.activation: tuple[str, list, str] = ('relu' if relu else 'none', [], '')
        self.out_channels = conv.out_channels
        self.reordered: tuple[tuple[torch.Size, int], Tensor] | None = None

    def forward(self, x: Tensor, other: Tensor | None = None, inplace: bool = False) -> Tensor:
        """Return conv(x) or conv(x) + ``other``, shape (N, C, H, W), after the ReLU if there is one.

        Args:
            x: input of any type.
            other: added to the result, of the same shape; only with a ReLU.
            inplace: whether the result may overwrite ``other``.
        """
        # Both conversions at once would take twice as long.
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        conv = (self._weight_for(x), self.bias, *self.geometry)
        operators = torch.ops.mkldnn
        if other is None:
            return operators._convolution_pointwise(x, *conv, *self.activation)
        if inplace:
            return operators._convolution_pointwise_.binary(other, x, *conv, 'add', 1.0, *self.activation)
        return operators._convolution_pointwise.binary(x, other, *conv, 'add', 1.0, *self.activation)

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


def _is_plain_block(module: nn.Module) -> bool:
    return (
        isinstance(module, BasicBlock | Bottleneck)
        and type(module).forward in (BasicBlock.forward, Bottleneck.forward)
        and not getattr(module, 'with_plugins', False)
        and all(_suits_onednn(conv) for conv in _convs(module))
        and not any(isinstance(child, nn.BatchNorm2d) for child in module.children())
    )


def _convs(block: nn.Module) -> list[nn.Conv2d]:
    return [getattr(block, name) for name in ('conv1', 'conv2', 'conv3') if hasattr(block, name)]


class FusedBlock(nn.Module):
    """A ResNet's residual block after BN is folded; its last conv adds the input or the projection of the input.

    Args:
        block: to compute.
        half: as :func:`fuse_for_inference` decides it.
    """

    def __init__(self, block: BasicBlock | Bottleneck, half: bool) -> None:
        super().__init__()
        *first, self.last = (FusedConv(conv, relu=True) for conv in _convs(block))
        self.first = nn.Sequential(*first)
        self.downsample = None if block.downsample is None else _fuse(block.downsample, half)
        self.owns_input = False  # whether no other module reads the input

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features, shape (N, C, H, W)."""
        if self.downsample is None:
            return self.last(self.first(x), x, self.owns_input)
        return self.last(self.first(x), self.downsample(x), inplace=True)
