"""The file of ShapeMask's priors: the usual shapes of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from centermask.utils.coco_ids import THING_IDS
from centermask.utils.errors import InputError


def load_priors(path: str, num_rows: int, num_priors: int, height: int, width: int) -> Tensor:
    """Read a ``.npy`` file of shapes and return them, float32, shape (1 + classes, K, height, width).

    The file has a row of K shapes for each class, by label, or one more before them for the background, which has
    shapes of 0 otherwise. For 80 classes it may have 91 rows by COCO's ids, as the release's file.

    Args:
        path: the file.
        num_rows: 1 + classes.
        num_priors: K.
        height, width: cells of a shape.

    Raises:
        InputError: the file is missing or damaged, or its shape or its values are others.
    """
    of = f"The file of ShapeMask's priors {path}"
    try:
        priors = np.load(Path(path), allow_pickle=False)
    except FileNotFoundError:
        raise InputError(
            f"{of} doesn't exist: make it by `python tools/make_shape_priors.py ANNOTATIONS.json {path}`, from the "
            'annotations that are trained on.'
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{of} can't be read as an array of NumPy ({error}): make it anew or give another.") from error
    rows = {count: [*range(count)] for count in (num_rows - 1, num_rows)}
    if num_rows == 1 + len(THING_IDS):
        rows[91] = [0, *THING_IDS]
    shape = (num_rows - 1, num_priors, height, width)
    if not isinstance(priors, np.ndarray) or priors.shape[1:] != shape[1:] or len(priors) not in rows:
        found = getattr(priors, 'shape', 'of several arrays')
        raise InputError(
            f'{of} has the shape {found}, the model needs {shape}: make it by tools/make_shape_priors.py from the data '
            'of the config.'
        )
    if priors.dtype.kind != 'f':
        raise InputError(f'{of} holds {priors.dtype} instead of fractions: make it by tools/make_shape_priors.py.')
    if not np.isfinite(priors).all():
        raise InputError(f'{of} holds NaN or infinity: make it anew by tools/make_shape_priors.py.')
    priors = torch.from_numpy(priors[rows[len(priors)]]).float()
    return priors if len(priors) == num_rows else torch.cat([torch.zeros_like(priors[:1]), priors])
