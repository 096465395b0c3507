"""Read the weights of a checkpoint from a file or from the net."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine import fileio
from torch import Tensor

from centermask.checkpoints.sources import as_url, fetch
from centermask.checkpoints.unpickling import UnreadableFileError, load_file
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
        source: where it is.
        map_location: as for ``torch.load``.
        remedy: what the user can do where it can't be read, the end of the sentence.

    Raises:
        InputError: it is missing, can't be fetched, is damaged, would run code or holds no weights.
    """
    url = as_url(source)
    file: str | io.BytesIO
    if url is None and '://' in source:
        try:
            file = io.BytesIO(fileio.get(source))  # MMEngine's own loaders may run a file's code
        except Exception as error:  # of the network, of the server, of MMEngine's back ends
            why = 'nothing is known by this name' if isinstance(error, KeyError) else str(error).split('\n')[0]
            raise InputError(f"The checkpoint {source} can't be fetched ({why}): {remedy}") from error
    elif not os.path.isfile(file := fetch(url, remedy) if url else os.path.expanduser(source)):
        why = 'is a folder' if os.path.isdir(file) else "doesn't exist"
        raise InputError(f'The checkpoint {source} {why}: {remedy}')
    name = f'{source} (kept as {file})' if url else source
    try:
        content = load_file(file, map_location)
    except UnreadableFileError as error:
        raise InputError(f'The checkpoint {name} {error}: {"remove it, or " if url else ""}{remedy}') from error
    return _checked(content, name, remedy)


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
