"""The fused copy of a detector: it predicts, while the detector and its training stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from centermask.fast.fused_layers import fuse_for_inference, half_type

Network = TypeVar('Network', bound=nn.Module)


class FusedCopy:
    """A cache of a detector's fused copy, which is built at the first image and again after weights have changed.

    It is no module, so state dicts know nothing of it; copies and pickles of the detector get an empty one.
    """

    def __init__(self) -> None:
        self.clear()

    def __reduce__(self) -> tuple:
        return FusedCopy, ()

    def clear(self) -> None:
        """Build the copy again at the next image."""
        self._copy: Any = None
        self._half = False
        self._weights: _Weights | None = None

    def of(self, detector: Network, half: bool = False) -> Network:
        """Return the detector's fused copy.

        Where the copy would compute something else, return the detector: in training, where gradients are computed,
        in a graph that is traced or compiled, and where a module's ``forward`` has been replaced.

        Args:
            detector: the same one at every call.
            half: whether the copy computes in half precision.
        """
        modules = [*detector.modules()]
        if (
            torch.is_grad_enabled()
            or any(module.training or 'forward' in module.__dict__ for module in modules)
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
        ):
            return detector
        tensors = [
            tensor
            for module in modules
            for tensor in (*module._parameters.values(), *module._buffers.values())
            if tensor is not None
        ]
        if self._weights is None or self._half != half or self._weights.changed(tensors):
            self._copy = fuse_for_inference(_shallow_copy(detector), half_type(tensors[0].device) if half else None)
            self._half, self._weights = half, _Weights(tensors)
        _copy_settings(detector, self._copy)
        return self._copy


class _Weights:
    """The state of a detector's parameters and buffers, to be compared without an operator of torch or a GPU wait.

    torch counts the in-place changes of a tensor, except those by ``.data``. For these, eight values of each tensor on
    a CPU are compared too. A change by ``.data`` of other values, or on a GPU, is noticed after ``eval()`` only.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors  # kept, so that no new tensor gets their memory
        self.samples = [_sample(tensor) for tensor in tensors if tensor.device.type == 'cpu' and tensor.numel()]
        self.state = self._read(tensors)

    def _read(self, tensors: Sequence[Tensor]) -> tuple[list, list]:
        versions = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
        return versions, [sample.tobytes() for sample in self.samples]

    def changed(self, tensors: Sequence[Tensor]) -> bool:
        """Return whether these are other tensors, or have other values."""
        return self._read(tensors) != self.state


def _sample(tensor: Tensor) -> np.ndarray:
    """Return a view of eight values of a dense tensor, evenly spaced in memory, as bytes."""
    step = max(tensor.numel() // 8, 1)
    return tensor.detach().as_strided((tensor.numel(),), (1,))[::step, None].view(torch.uint8).numpy()


def _shallow_copy(module: Network) -> Network:
    """Copy the tree of modules; tensors and settings stay shared."""
    copied = copy.copy(module)
    copied._modules = {name: child and _shallow_copy(child) for name, child in module._modules.items()}
    copied._parameters = {
        name: None if tensor is None else nn.Parameter(tensor.detach(), requires_grad=False)
        for name, tensor in module._parameters.items()
    }
    copied._buffers = dict(module._buffers)
    return copied


def _copy_settings(module: nn.Module, copied: Any, depth: int = 2) -> None:
    """Copy attributes that were set on the detector and its parts since, such as a ``test_cfg``."""
    own = ('_modules', '_parameters', '_buffers')
    copied.__dict__.update((name, value) for name, value in module.__dict__.items() if name not in own)
    for name, child in module.named_children() if depth else ():
        if type(copied._modules[name]) is type(child):
            _copy_settings(child, copied._modules[name], depth - 1)
