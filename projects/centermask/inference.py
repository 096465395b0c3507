"""Testing computes the same with less work: BN is folded into the convs, and channels lie next to each other in memory.

:func:`prepare` does so to a model that won't train again. :class:`Folded` keeps a twin of a detector that was prepared
and leaves the detector itself, its state dict and its training as they are.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from mmcv.cnn.utils import fuse_conv_bn
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, RoIAlign, RoIPool
from torch import Tensor, nn

Network = TypeVar('Network', bound=nn.Module)

# MMCV's operators that take any memory for rows of one channel after the other.
CONTIGUOUS_ONLY = (DeformConv2d, ModulatedDeformConv2d, RoIAlign, RoIPool)


def prepare(model: Any) -> Any:
    """Prepare any model of MMDetection for testing, in place; it can't train then. Returns the model.

    Args:
        model: in eval mode.
    """
    with torch.no_grad():
        fuse_conv_bn(model)
        model.to(memory_format=torch.channels_last)
        return _guard_contiguous(model)


class _Contiguous(nn.Module):
    """An operator of ``CONTIGUOUS_ONLY`` in a network whose memory is channels-last."""

    def __init__(self, operator: Any) -> None:
        super().__init__()
        self.operator = operator.to(memory_format=torch.contiguous_format)

    def __getattr__(self, name: str) -> Any:
        """Extractors of RoIs ask their operators for sizes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('operator'), name)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.operator(*(x.contiguous() for x in inputs))


def _guard_contiguous(module: Any) -> Any:
    if isinstance(module, CONTIGUOUS_ONLY):
        return _Contiguous(module)
    for name, child in module.named_children():
        module._modules[name] = _guard_contiguous(child)
    return module


class Folded:
    """The twin of a detector that tests in its place.

    The twin is made at the first image and again whenever weights have changed. It is not a module, so the detector's
    state dict, copies and files don't know of it.
    """

    def __init__(self) -> None:
        self.forget()

    def __deepcopy__(self, memo: dict) -> Folded:
        return Folded()

    def __reduce__(self) -> tuple:
        return Folded, ()

    def forget(self) -> None:
        """Make the twin anew at the next image."""
        self._twin: Any = None
        self._watch: _Watch | None = None

    def of(self, detector: Network) -> Network:
        """Return the detector's twin, or the detector itself where the two would differ.

        They would where gradients are wanted, in training, in a graph that is being exported, and where someone has
        given a module a ``forward`` of its own.
        """
        modules = list(detector.modules())
        if (
            torch.is_grad_enabled()
            or any(module.training or 'forward' in module.__dict__ for module in modules)
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
        ):
            return detector
        tensors = _tensors(modules)
        if self._twin is None or self._watch is None or self._watch.changed(tensors):
            self._twin, self._watch = prepare(_twin(detector)), _Watch(tensors)
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
