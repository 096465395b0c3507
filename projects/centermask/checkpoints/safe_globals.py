"""Content of MMEngine's own checkpoints besides tensors, admitted to torch's safe loader.

``torch.load`` with ``weights_only`` (its default) refuses any other class or function that a file names. MMEngine
writes its logs into every checkpoint as ``HistoryBuffer`` objects of numpy arrays, and validation results as numpy
scalars, so without this list none of its checkpoints could be tested, resumed or shown.
"""

from __future__ import annotations

from collections.abc import Callable
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# numpy 2 moved these functions to numpy._core; a checkpoint names the module of the numpy that wrote it.
_reconstruct: Callable = np.zeros(1).__reduce__()[0]  # type: ignore[assignment]
_scalar: Callable = np.float64(0).__reduce__()[0]  # type: ignore[assignment]


def _statistic(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` in a checkpoint, as which a ``HistoryBuffer`` writes its four statistics.

    The real ``getattr`` would reach any attribute of any object, so this one admits those four only.
    """
    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise UnpicklingError(f'getattr({owner!r}, {name!r}) is no statistic of a HistoryBuffer')


SAFE_GLOBALS: list = [
    HistoryBuffer,
    (_statistic, 'builtins.getattr'),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ('bool', 'int32', 'int64', 'float32', 'float64')),
    *((_reconstruct, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *((_scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
]
torch.serialization.add_safe_globals(SAFE_GLOBALS)
