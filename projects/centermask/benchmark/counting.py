"""Operator calls and host waits of an inference: points where the host waits for a result.

The host waits where it must know a value before it continues, because it becomes a Python or NumPy value or decides a
shape. On a GPU each wait empties the queue; on a CPU they can be counted exactly. Of other threads and of compiled
functions nothing is seen: count eagerly in one thread.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from mmcv.ops.nms import ext_module as operators_of_mmcv
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose result's shape or value the host has to know.
SCALARS = {'_local_scalar_dense', 'item', 'is_nonzero', 'equal', 'allclose'}
SHAPES = {
    'nonzero',
    'nonzero_numpy',
    'argwhere',
    'masked_select',
    'unique',
    '_unique2',
    'unique_dim',
    'unique_consecutive',
    'bincount',
    'repeat_interleave',
    'nms',
}
# One wait each; of a tensor that `cpu` has returned, none.
TRANSFERS = ('cpu', 'numpy', 'tolist', '__array__')


class Cost:
    """What has been counted.

    Attributes:
        calls: operators that torch has been asked for, but for those within an NMS or a transfer.
        by_operator: waits by the operator, NMS or transfer that caused them.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.by_operator: Counter[str] = Counter()
        self.within_one = False  # in something that counts as one wait, whatever it does

    @property
    def waits(self) -> int:
        """Waits of the host."""
        return self.by_operator.total()


@contextmanager
def count() -> Iterator[Cost]:
    """Yield a :class:`Cost` that fills while the block runs in this thread.

    One wait is: an operator of ``SCALARS`` or ``SHAPES`` (but ``repeat_interleave`` with a given size), indexing by a
    mask (but assigning one value through it), one NMS of MMCV or torchvision, one transfer to the host
    (``.cpu().numpy()`` is one). A transfer is an operator call where it is by ``cpu``.
    """
    cost = Cost()
    with ExitStack() as patches:
        patches.enter_context(
            patch.object(operators_of_mmcv, 'nms', _one_wait(cost, 'mmcv.nms', operators_of_mmcv.nms))
        )
        for name in TRANSFERS:
            patches.enter_context(patch.object(Tensor, name, _one_wait(cost, name, getattr(Tensor, name))))
        patches.enter_context(_Operators(cost))
        yield cost


class _Operators(TorchDispatchMode):
    def __init__(self, cost: Cost) -> None:
        super().__init__()
        self.cost = cost

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence = (), kwargs: Mapping | None = None) -> Any:
        kwargs = kwargs or {}
        if not self.cost.within_one:
            self.cost.calls += 1
            name = func.overloadpacket.__name__
            if waited := _waits_for(name, args, kwargs):
                self.cost.by_operator[waited] += 1
        return func(*args, **kwargs)


def _waits_for(name: str, args: Sequence, kwargs: Mapping) -> str | None:
    """The name under which an operator's wait counts, None where the host doesn't wait."""
    if name == 'repeat_interleave' and kwargs.get('output_size') is not None:
        return None
    if name in SCALARS or name in SHAPES:
        return name
    if name in ('index', 'index_put', 'index_put_'):
        by_mask = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1] or ())
        # One value assigned through a mask becomes a masked fill.
        if by_mask and (name == 'index' or args[2].numel() != 1):
            return f'{name}[mask]'
    return None


def _one_wait(cost: Cost, name: str, function: Callable) -> Callable:
    """The function, counted as one wait with all that it does."""

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        if cost.within_one:
            return function(*args, **kwargs)
        if not getattr(args[0] if args else None, 'is_on_host', False):
            cost.by_operator[name] += 1
        cost.within_one = True
        try:
            result = function(*args, **kwargs)
        finally:
            cost.within_one = False
        if name == 'cpu':
            # On a CPU `cpu` returns the tensor itself, which must not be marked.
            result = result.view_as(result)
            result.is_on_host = True
        return result

    return counted
