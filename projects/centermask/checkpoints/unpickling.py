"""Load checkpoint files of all kinds without running code from them."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch

from centermask.checkpoints.safe_globals import SAFE_GLOBALS


class UnreadableFileError(Exception):
    """A file that isn't a complete checkpoint. The message is the end of a sentence that begins with the file."""


def load_file(file: str | Path | BytesIO, map_location: Any = 'cpu') -> Any:
    """Return the content of a file. Names that end in ``.pkl`` are pickles of arrays, all others torch's.

    Raises:
        UnreadableFileError: it is damaged, no checkpoint, or would run code.
    """
    try:
        if urlparse(str(file)).path.endswith('.pkl'):  # wget keeps the query of a URL in the name
            with open(str(file), 'rb') as arrays:
                return _ArrayUnpickler(arrays, encoding='latin1').load()
        # The onedl fork of MMEngine withdraws what it admits after each file that it loads.
        torch.serialization.add_safe_globals(SAFE_GLOBALS)
        return torch.load(file, map_location, weights_only=True)
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        refused = re.search(r'[Uu]nsupported (?:global: )?GLOBAL (\S+)', str(error))
        if refused:
            raise UnreadableFileError(f'holds a {refused[1]}, which no checkpoint needs') from error
        raise UnreadableFileError('is truncated or no checkpoint at all') from error


def _latin1(text: str, encoding: str) -> bytes:
    """Stand in for ``codecs.encode`` in a pickle: Python 3 writes bytes so for readers of Python 2."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'bytes in the encoding {encoding}')
    return text.encode('latin1')


_NEEDED_BY_ARRAYS = {
    'collections.OrderedDict': OrderedDict,
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': np.dtype,
    '_codecs.encode': _latin1,
    # numpy 2 moved them; a pickle names the module of the numpy that wrote it.
    **{f'numpy.{core}.multiarray._reconstruct': np.zeros(1).__reduce__()[0] for core in ('core', '_core')},
    **{f'numpy.{core}.numeric._frombuffer': np.zeros(1).__reduce_ex__(5)[0] for core in ('core', '_core')},
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits arrays and plain containers only: any other name in a pickle could be a function."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NEEDED_BY_ARRAYS[f'{module}.{name}']
        except KeyError:
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {module}.{name}') from None
