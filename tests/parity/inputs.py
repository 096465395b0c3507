"""Readers of a comparison's files: the expected arrays and the annotated images that they were computed from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from centermask.utils.errors import InputError


class AnnotatedImage(NamedTuple):
    """An image with its G objects."""

    image: NDArray[np.uint8]  # (H, W, 3), BGR
    boxes: NDArray[np.float32]  # (G, 4), x1, y1, x2, y2 in pixels
    labels: NDArray[np.int64]  # (G,)
    polygons: list[list[np.ndarray]]  # the polygons of each object, flat: x0, y0, x1, y1, …
    sem_seg: NDArray[np.uint8] | None = None  # (H, W), semantic classes for a panoptic model


class Inputs(NamedTuple):
    """The inputs of the model."""

    single: AnnotatedImage
    multi: AnnotatedImage
    rois: NDArray[np.float32]  # (R, 4) on ``single``
    roi_labels: NDArray[np.int64]  # (R,)


def read_arrays(path: Path, what: str) -> dict[str, np.ndarray]:
    """Read an ``.npz`` file of numbers without running code from it.

    Args:
        path: the file.
        what: its name in messages, such as ``'expected file'``.

    Raises:
        InputError: the file is missing or damaged, or an array in it isn't numeric.
    """
    if not path.is_file():
        raise InputError(f"The {what} {path} doesn't exist: give the path of an .npz file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # what a damaged file raises depends on its first wrong byte
        raise InputError(
            f'The {what} {path} is truncated or no .npz file at all: give one that NumPy wrote.'
        ) from error
    if not arrays:
        raise InputError(f'The {what} {path} holds no arrays: give the file of the expected numbers.')
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # torch's checkpoints are archives too
            raise InputError(f'The {what} {path} holds {name}, which is no array: give an .npz file that NumPy wrote.')
        if array.dtype.kind not in 'biufU':
            raise InputError(f'The {what} {path} has {array.dtype} instead of numbers in {name}: give another file.')
    return arrays


def find_inputs(expected: Path) -> Path:
    """Return the ``inputs.npz`` beside a file of expected arrays or one folder above it.

    Raises:
        InputError: neither folder has the file.
    """
    folder = expected.absolute().parent
    for path in (folder / 'inputs.npz', folder.parent / 'inputs.npz'):
        if path.is_file():
            return path
    raise InputError(f'There is no inputs.npz beside {expected} or one folder above it: name the file by --inputs.')


def read_inputs(path: Path) -> Inputs:
    """Read images, boxes and labels from ``path`` and polygons from the ``.json`` file beside it.

    Raises:
        InputError: a file is missing or damaged, or an array is absent or has a shape that doesn't fit.
    """
    arrays = read_arrays(path, 'inputs')
    beside = path.with_suffix('.json')
    try:
        polygons = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"The polygons are read from {beside}, which is missing or isn't JSON: add it.") from error

    def array(name: str, *shape: int | None, kind: str = 'f') -> np.ndarray:
        found = arrays.get(name)
        wanted = ', '.join('any' if length is None else str(length) for length in shape)
        if found is None:
            raise InputError(f'The inputs {path} have no {name}, an array of shape ({wanted}): add it.')
        fits = found.ndim == len(shape) and all(s in (None, n) for s, n in zip(shape, found.shape, strict=True))
        if not fits or found.dtype.kind not in kind or not found.size:
            raise InputError(
                f'The inputs {path} have {found.dtype} of shape {found.shape} in {name}, which has to be of shape '
                f'({wanted}): correct the file.'
            )
        return found

    def annotated_image(suffix: str) -> AnnotatedImage:
        image = array(f'image{suffix}', None, None, 3, kind='u').astype(np.uint8)
        boxes = array(f'gt_boxes{suffix}', None, 4).astype(np.float32)
        labels = array(f'gt_labels{suffix}', len(boxes), kind='iu').astype(np.int64)
        try:
            objects = [[np.array(flat, np.float64) for flat in shape] for shape in polygons[f'gt_polygons{suffix}']]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f'{beside} has no lists of flat polygons in gt_polygons{suffix}: correct it.') from error
        if len(objects) != len(boxes):
            raise InputError(
                f'{beside} has polygons of {len(objects)} objects in gt_polygons{suffix} and {path} has {len(boxes)} '
                f'boxes in gt_boxes{suffix}: correct one of them.'
            )
        return AnnotatedImage(image, boxes, labels, objects)

    rois = array('boxes', None, 4).astype(np.float32)
    roi_labels = array('labels', len(rois), kind='iu').astype(np.int64)
    return Inputs(annotated_image(''), annotated_image('2'), rois, roi_labels)
