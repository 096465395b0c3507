"""Read checkpoint files of all kinds without running code from them."""

from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from centermask.utils.errors import InputError

_DTYPES = ('float16', 'float32', 'float64', 'int32', 'int64', 'uint8')  # of arrays that torch takes
_SMALL = 2**28  # bytes; the largest weight of a released model has 2**26


class Contents(NamedTuple):
    """The content of a checkpoint file."""

    weights: dict[str, Tensor]
    entry: str  # the entry that held them, '' if the file is nothing but weights
    others: dict[str, Any]  # its other entries


def read(source: str, map_location: Any = 'cpu', remedy: str = 'give the path of a checkpoint.') -> Contents:
    """Read a checkpoint from a file, a URL or one of MMEngine's short forms (``open-mmlab://...``).

    Args:
        source: where it is. Names that end in ``.pkl`` are pickles of arrays (Detectron2, Caffe2), all others torch's.
        map_location: as for ``torch.load``.
        remedy: what the user can do where it can't be read, the end of the sentence.

    Raises:
        InputError: it is missing, can't be fetched, is damaged, would run code or holds no weights.
    """
    path, fetched = os.path.expanduser(source), ''
    try:
        if source.startswith(('http://', 'https://')):
            path = fetch(source)
            fetched = f' (kept as {path})'
        elif '://' in source:
            return _checked(CheckpointLoader.load_checkpoint(source, map_location, logger='silent'), source, remedy)
    except InputError:
        raise
    except Exception as error:  # of the network, of the server, of MMEngine's loaders
        why = str(error).split('\n')[0] or type(error).__name__
        raise InputError(f"The checkpoint {source} can't be fetched ({why}): {remedy}") from error
    if not os.path.isfile(path):
        why = 'is a folder' if os.path.isdir(path) else "doesn't exist"
        raise InputError(f'The checkpoint {source} {why}: {remedy}')
    try:
        if urlparse(source).path.endswith('.pkl'):
            with open(path, 'rb') as file:
                content = _ArrayUnpickler(file, encoding='latin1').load()
        else:
            content = torch.load(path, map_location, weights_only=True)
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        refused = re.search(r'[Uu]nsupported (?:global: )?GLOBAL (\S+)', str(error))
        why = f'holds a {refused[1]}, which no checkpoint needs' if refused else 'is truncated or no checkpoint at all'
        raise InputError(f'The checkpoint {source}{fetched} {why}: {remedy}') from error
    return _checked(content, source + fetched, remedy)


def _checked(content: Any, source: str, remedy: str) -> Contents:
    contents = weights_of(content) if isinstance(content, Mapping) else None
    if contents is None:
        raise InputError(f'The checkpoint {source} holds no weights: {remedy}')
    for name, tensor in contents.weights.items():
        if flaw := _flaw(name, tensor):
            raise InputError(f"The checkpoint {source} can't be used, {name} {flaw}: {remedy}")
    return contents


def _flaw(name: str, tensor: Tensor) -> str:
    """Return what keeps a tensor from being a weight, '' if nothing does."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        return f'is a tensor of an unusual kind ({tensor.layout}, {tensor.dtype}, {tensor.device})'
    if tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), _SMALL):  # values may repeat
        return f'claims a shape of {tuple(tensor.shape)}, which the file does not hold'
    if not tensor.is_floating_point():
        of_integers = name.endswith(('.weight', '.bias', '.running_mean', '.running_var'))
        return f'is of integers ({tensor.dtype})' if of_integers else ''
    values = tensor.float() if tensor.element_size() == 1 else tensor
    return '' if values.isfinite().all() else 'holds NaN or infinity'


def weights_of(content: Mapping) -> Contents | None:
    """Split a file's content into weights and the rest; None if there are no weights.

    They are under ``state_dict`` (MMEngine), ``model`` (both releases) or ``blobs`` (Caffe2), or the file is nothing
    else.
    """
    entry = next((name for name in ('state_dict', 'model', 'blobs') if isinstance(content.get(name), Mapping)), '')
    values = content[entry] if entry else content
    tensors = {
        # A copy, as the file's arrays may be in another byte order or not writable.
        str(name): torch.from_numpy(value.astype(value.dtype.name)) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.name in _DTYPES)
    }
    if not tensors:
        return None
    others = {name: value for name, value in values.items() if name not in tensors}
    if entry:
        others |= {name: value for name, value in content.items() if name != entry}
    return Contents(tensors, entry, others)


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


def fetch(url: str) -> str:
    """Return the path of a file from the net, which stays in torch's cache.

    It is named by its complete address there: many files are called R-50.pkl or pytorch_model.bin.
    """
    address = urlparse(url)
    name = re.sub(r'[^\w.-]+', '_', address.netloc + address.path)
    path = os.path.join(torch.hub.get_dir(), 'checkpoints', name)
    try:
        if is_main_process() and not os.path.exists(path):
            print_log(f'fetching {url} as {path}', 'current')
            os.makedirs(os.path.dirname(path), exist_ok=True)
            torch.hub.download_url_to_file(url, path)  # which renames it into place
    finally:
        barrier()  # the other processes see the first one's files
    return path
