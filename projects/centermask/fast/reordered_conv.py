"""Convs on a CPU that read weights which oneDNN has reordered once.

This takes private operators of torch, without which the convs stay torch's own: the same numbers, 3 to 5 % more time an
image.
"""

from __future__ import annotations

import functools

import torch
from mmcv.cnn.bricks.wrappers import Conv2d
from torch import Tensor, nn

NO_ACTIVATION = 'none'  # oneDNN's name


@functools.cache
def has_onednn_operators(dtype: torch.dtype) -> bool:
    """Return whether torch has the operators of :class:`ReorderedConv` and this CPU runs them in a precision."""
    try:
        ReorderedConv(nn.Conv2d(1, 1, 1).to(dtype))(torch.zeros(1, 1, 1, 1, dtype=dtype))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def suits_onednn(module: nn.Module) -> bool:
    """Return whether a :class:`ReorderedConv` can replace a module."""
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
