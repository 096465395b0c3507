"""The twin of a detector, prepared for testing, beside which the detector itself and its training stay as they are."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from centermask.fast.fused_layers import half_type, prepare

Network = TypeVar('Network', bound=nn.Module)


class FusedCopy:
    """Makes and keeps the twin of a detector, which tests in its place.

    The twin is made at the first image and again whenever weights have changed. It is not a module, so the detector's
    state dict, copies and files don't know of it.
    """

    def __init__(self) -> None:
        self.forget()

    def __deepcopy__(self, memo: dict) -> FusedCopy:
        return FusedCopy()

    def __reduce__(self) -> tuple:
        return FusedCopy, ()

    def forget(self) -> None:
        """Make the twin anew at the next image."""
        self._twin: Any = None
        self._watch: _Watch | None = None
        self._half = False

    def of(self, detector: Network, half: bool = False) -> Network:
        """Return the detector's twin, or the detector itself where the two would differ.

        They would where gradients are wanted, in training, in a graph that is being exported, and where someone has
        given a module a ``forward`` of its own.

        Args:
            detector: always the same.
            half: whether the twin computes in half precision.
        """
        modules = _modules(detector)
        if (
            torch.is_grad_enabled()
            or any(module.training or 'forward' in module.__dict__ for module in modules)
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
        ):
            return detector
        tensors = _tensors(modules)
        if self._twin is None or self._watch is None or self._half != half or self._watch.changed(tensors):
            self._twin = prepare(_twin(detector), half_type(tensors[0].device) if half else None)
            self._watch, self._half = _Watch(tensors), half
        _share_settings(detector, self._twin)
        return self._twin


class _Watch:
    """Whether tensors have changed, told without an operator and without waiting for a GPU.

    torch counts the changes of a tensor, but for those by ``.data``. On a CPU a few values of each tensor are compared
    too, so that of these only such are overlooked that leave most of a tensor as it is.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        samples = [_sample(tensor) for tensor in tensors if tensor.device.type == 'cpu' and tensor.numel()]
        self.samples = [sample.numpy() for sample in samples]  # views of the tensors' memory
        self.tensors = tensors  # kept, so that their memory is
        self.versions, self.values = _versions(tensors), self._read()

    def _read(self) -> list[bytes]:
        return [sample.tobytes() for sample in self.samples]

    def changed(self, tensors: list[Tensor]) -> bool:
        """Whether these are other tensors than at first, or have other values."""
        return _versions(tensors) != self.versions or self._read() != self.values


def _versions(tensors: list[Tensor]) -> list[tuple]:
    return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]


def _sample(tensor: Tensor) -> Tensor:
    """Every eighth part's first value, in the order of memory, as bytes."""
    step = max(tensor.numel() // 8, 1)
    return tensor.detach().as_strided((tensor.numel(),), (1,))[::step, None].view(torch.uint8)


def _modules(module: nn.Module) -> list[nn.Module]:
    """Return a module and all in it; ``modules`` takes several times as long."""
    found = [module]
    for one in found:  # which grows
        found += (child for child in one._modules.values() if child is not None)
    return found


def _tensors(modules: list[nn.Module]) -> list[Tensor]:
    parameters_and_buffers = (values for m in modules for values in (m._parameters.values(), m._buffers.values()))
    return [tensor for values in parameters_and_buffers for tensor in values if tensor is not None]


def _twin(module: Network) -> Network:
    """Copy the tree of modules; their tensors and everything else stay shared."""
    twin = copy.copy(module)
    twin._modules = {name: child and _twin(child) for name, child in module._modules.items()}
    twin._parameters = {
        name: None if tensor is None else nn.Parameter(tensor.detach(), requires_grad=False)
        for name, tensor in module._parameters.items()
    }
    twin._buffers = dict(module._buffers)
    return twin


def _share_settings(module: nn.Module, twin: Any, depth: int = 2) -> None:
    """Give the twin and its larger parts what has been set on the detector's since, such as a ``test_cfg``."""
    own = ('_modules', '_parameters', '_buffers')
    twin.__dict__.update((name, value) for name, value in module.__dict__.items() if name not in own)
    for name, child in module.named_children() if depth else ():
        if type(twin._modules[name]) is type(child):
            _share_settings(child, twin._modules[name], depth - 1)
