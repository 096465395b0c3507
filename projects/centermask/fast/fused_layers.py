"""Testing computes the same with less work, by layers that cannot train.

BN is folded into the convs and channels lie next to each other in memory. On a CPU each conv, what is added to its
result and its activation are one operator of oneDNN.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.wrappers import Conv2d
from mmcv.cnn.utils import fuse_conv_bn
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, RoIAlign, RoIPool
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from centermask.fast.roi_align import FusedRoIExtractor
from centermask.scale_adaptive_roi_extractor import ScaleAdaptiveRoIExtractor

# MMCV's operators that take any memory for rows of one channel after the other.
CONTIGUOUS_ONLY = (DeformConv2d, ModulatedDeformConv2d, RoIAlign, RoIPool)

# oneDNN's names of activations, and their arguments.
ACTIVATIONS: dict[type, tuple[str, list[float]]] = {
    nn.Identity: ('none', []),
    nn.ReLU: ('relu', []),
    nn.ReLU6: ('hardtanh', [0.0, 6.0]),
}


def fuse_for_inference(model: Any, dtype: torch.dtype | None = None) -> Any:
    """Prepare any model of MMDetection for testing, in place; it can't train then. Returns the model.

    Args:
        model: in eval mode.
        dtype: ``torch.bfloat16`` or ``torch.float16``, in which its parts compute then. The results of a CenterMask are
            in single precision all the same.
    """
    with torch.no_grad():
        fuse_conv_bn(model)
        model.to(memory_format=torch.channels_last)
        for name, child in model.named_children():
            if dtype is not None and name != 'data_preprocessor':
                child.to(dtype)
        return _fuse(model, dtype is not None)


def half_type(device: torch.device) -> torch.dtype:
    """The half precision that a device computes fast: bfloat16 on a CPU, float16 on a GPU."""
    return torch.bfloat16 if device.type == 'cpu' else torch.float16


def _fuse(module: Any, half: bool) -> Any:
    """Return what computes the same as a module in a network of channels-last memory, in half precision or not."""
    if type(module) is ScaleAdaptiveRoIExtractor:
        return FusedRoIExtractor(module)
    if isinstance(module, CONTIGUOUS_ONLY):
        return _Contiguous(module, single_precision=half)
    if type(module) in (nn.Conv2d, Conv2d) and _suits_onednn(module):
        return FusedConv(module)
    if type(module) in (nn.Conv2d, Conv2d) and half:
        return _Cast(module)
    if isinstance(module, nn.GroupNorm) and half and module.weight.device.type == 'cpu':
        return _HalfGroupNorm(module)
    if isinstance(module, ConvModule) and _is_conv_and_activation(module):
        return FusedConv(module.conv, module.activate if module.with_activation else None)
    if isinstance(module, BasicBlock | Bottleneck) and _is_plain_block(module):
        return FusedBlock(module, half)
    for name, child in module.named_children():
        if name != 'conv_logits':  # its weights are read for one class an RoI
            module._modules[name] = _fuse(child, half)
    if isinstance(module, ResNet) and isinstance(module._modules.get('conv1'), FusedConv):
        module.conv1.activate(module.relu)
        module.relu = nn.Identity()
    if isinstance(module, nn.Sequential):
        for block, following in pairwise(module):
            if isinstance(block, FusedBlock) and isinstance(following, FusedBlock):
                following.owns_input = True
    return module


class _Contiguous(nn.Module):
    """An operator of ``CONTIGUOUS_ONLY``, for features of any memory format and type."""

    def __init__(self, operator: Any, single_precision: bool) -> None:
        super().__init__()
        self.operator = operator.to(memory_format=torch.contiguous_format)
        self.single_precision = single_precision
        if single_precision:
            self.operator.float()

    def __getattr__(self, name: str) -> Any:
        """Extractors of RoIs ask their operators for sizes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('operator'), name)

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        x_as_wanted, *others = ((t.float() if self.single_precision else t).contiguous() for t in (x, *inputs))
        return self.operator(x_as_wanted, *others).to(x.dtype)


class _Cast(nn.Module):
    """A conv in half precision, for features of any type."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.to(self.conv.weight.dtype))


class _HalfGroupNorm(nn.Module):
    """A group norm for features in half precision on a CPU.

    For maps of less than 1024 locations torch has a second way, which takes five times as long in bfloat16 as in single
    precision.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm, self.single_precision = norm, copy.deepcopy(norm).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.single_precision(x.float()).to(x.dtype) if x[0, 0].numel() < 1024 else self.norm(x)


def _suits_onednn(conv: nn.Conv2d) -> bool:
    weight = conv.weight
    return (
        weight.device.type == 'cpu'
        and weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
        and conv.padding_mode == 'zeros'
        and not isinstance(conv.padding, str)
    )


def _is_conv_and_activation(module: ConvModule) -> bool:
    return (
        type(module.conv) in (nn.Conv2d, Conv2d)
        and _suits_onednn(module.conv)
        and module.order == ('conv', 'norm', 'act')
        and not module.with_explicit_padding
        and isinstance(module.norm, nn.Identity | None)
        and (not module.with_activation or type(module.activate) in ACTIVATIONS)
    )


class FusedConv(nn.Module):
    """A conv and its activation as one operator of oneDNN, with weights in the order that oneDNN wants them.

    Args:
        conv: a conv without padding but zeros.
        activation: one of ``ACTIVATIONS``.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.out_channels = conv.out_channels
        self.ordered: tuple[tuple[torch.Size, int], Tensor] | None = None
        self.activate(activation or nn.Identity())

    def activate(self, activation: nn.Module) -> None:
        """Set the activation."""
        self.activation = ACTIVATIONS[type(activation)]

    def forward(self, x: Tensor, other: Tensor | None = None, inplace: bool = False) -> Tensor:
        """Return the activation of conv(x), shape (N, C, H, W), or of conv(x) + ``other``.

        Args:
            x: input.
            other: of the result's shape.
            inplace: whether ``other`` is nobody else's, so that the result may take its memory.
        """
        # Both at once would take twice as long.
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        weight = self._weight_for(x)
        name, arguments = self.activation
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *self.geometry, name, arguments, '')
        if inplace:
            return torch.ops.mkldnn._convolution_pointwise_.binary(
                other, x, weight, self.bias, *self.geometry, 'add', 1.0, name, arguments, ''
            )
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, weight, self.bias, *self.geometry, 'add', 1.0, name, arguments, ''
        )

    def _weight_for(self, x: Tensor) -> Tensor:
        """Return the weight in the order that oneDNN wants, for inputs like the first; for others as it is.

        Any order gives the right result, but one for another size is often ordered anew at every call, which takes
        several times as long as the conv itself.
        """
        situation = (x.shape, torch.get_num_threads())
        if self.ordered is None:
            weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, list(x.shape))
            self.ordered = situation, weight
        return self.ordered[1] if situation == self.ordered[0] else self.weight


def _is_plain_block(block: BasicBlock | Bottleneck) -> bool:
    return (
        type(block).forward in (BasicBlock.forward, Bottleneck.forward)
        and not getattr(block, 'with_plugins', False)
        and all(type(conv) in (nn.Conv2d, Conv2d) and _suits_onednn(conv) for conv in _convs(block))
        and not any(isinstance(child, nn.BatchNorm2d) for child in block.children())
    )


def _convs(block: BasicBlock | Bottleneck) -> list[nn.Conv2d]:
    return [getattr(block, name) for name in ('conv1', 'conv2', 'conv3') if hasattr(block, name)]


class FusedBlock(nn.Module):
    """A residual block of a ResNet without a norm left: the last conv adds the input, or its projection."""

    def __init__(self, block: BasicBlock | Bottleneck, half: bool) -> None:
        super().__init__()
        *first, self.last = (FusedConv(conv, nn.ReLU()) for conv in _convs(block))
        self.first = nn.Sequential(*first)
        self.downsample = None if block.downsample is None else _fuse(block.downsample, half)
        self.owns_input = False  # whether nobody else reads it

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is None:
            return self.last(self.first(x), x, self.owns_input)
        return self.last(self.first(x), self.downsample(x), inplace=True)
