"""Pasting of 28×28 masks from their boxes into the image, by the rules of both releases.

Both rules sample a mask bilinearly on a grid along the axes. The result is a product of three matrices: the weights of
the cells for each row, the cells, the weights of the cells for each column. It is computed for the pixels of the box
only, in stripes, so the memory needed doesn't grow with image or box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pycocotools.mask as coco_mask

from .structures.rle_masks import RLEMasks

STRIPE = 1 << 20  # pixels computed at once
SERIAL = 1 << 18  # most multiplications of a product for which OpenBLAS (NumPy's) starts no threads
Grid = tuple[int, np.ndarray]
"""First pixel along an axis, and the positions (P,) of it and the next ones in the mask, in cells."""


def _sampled(low: np.float32, high: np.float32, pixels: int, cells: int) -> Grid:
    """Return the grid of pixel centres in the exact box (star recipe)."""
    first, last = max(math.floor(low) - 1, 0), min(math.ceil(high) + 1, pixels)
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    return first, (centres - low) / (high - low) * cells - np.float32(0.5)


def _resized(low: np.float32, high: np.float32, pixels: int, cells: int) -> Grid:
    """Return the grid of the mask with a margin of one cell, resized to whole pixels (paper recipe)."""
    centre, half = (low + high) / 2, (high - low) / 2 * (cells + 2) / cells
    start, stop = int(centre - half), int(centre + half)
    size = max(stop - start + 1, 1)
    first, last = max(start, 0), min(start + size, pixels)
    centres = np.arange(first - start, last - start, dtype=np.float32) + np.float32(0.5)
    return first, centres * np.float32((cells + 2) / size) - np.float32(1.5)


# The grid, and the comparison of a pixel's probability with the threshold.
PASTINGS: dict[str, tuple[Callable[..., Grid], Callable]] = {
    'sampled': (_sampled, np.greater_equal),
    'resized': (_resized, np.greater),
}


def _weights(positions: np.ndarray, cells: int) -> np.ndarray:
    """Return the linear weight of each cell at each position (P,), shape (P, cells); 0 outside the mask."""
    return np.maximum(1 - np.abs(positions[:, None] - np.arange(cells, dtype=np.float32)), 0)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the product of two float32 matrices, computed in this thread.

    OpenBLAS's worker threads spin for tens of milliseconds after a product and slow down the next image's first convs.
    """
    product = np.empty((len(a), b.shape[1]), np.float32)
    step = max(SERIAL // b.size, 1)
    for i in range(0, len(a), step):
        np.matmul(a[i : i + step], b, out=product[i : i + step])
    return product


def _stripes(
    probability: np.ndarray, box: np.ndarray, image_size: tuple[int, int], threshold: float, pasting: str
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the stripes of a mask from left to right: left and top pixel, and the columns as bool, shape (w, h).

    Pixels outside the stripes are background.
    """
    (height, width), cells = image_size, len(probability)
    grid, belongs = PASTINGS[pasting]
    (left, across), (top, down) = grid(box[0], box[2], width, cells), grid(box[1], box[3], height, cells)
    if len(across) and len(down):
        columns, rows = _product(_weights(across, cells), probability.T), _weights(down, cells).T  # (w, 28), (28, h)
        step = max(STRIPE // len(down), 1)
        for i in range(0, len(across), step):
            yield left + i, top, belongs(_product(columns[i : i + step], rows), threshold)


def paste(
    probabilities: Sequence[np.ndarray] | np.ndarray,
    boxes: np.ndarray,
    image_size: tuple[int, int],
    threshold: float,
    pasting: str,
) -> np.ndarray:
    """Return masks of the image, bool, shape (N, height, width).

    Args:
        probabilities: square masks in their boxes, float32, shape (N, 28, 28) or of sizes of their own.
        boxes: x1, y1, x2, y2 in pixels, float32, shape (N, 4).
        image_size: height and width in pixels.
        threshold: least probability of the object's pixels; with ``'resized'`` they exceed it.
        pasting: ``'sampled'`` samples at the centres of the image's pixels (star recipe); ``'resized'`` resizes the
            mask with a margin of one cell to whole pixels (paper recipe).
    """
    masks = np.zeros((len(boxes), *image_size), bool)
    for mask, probability, box in zip(masks, probabilities, boxes, strict=True):
        for left, top, columns in _stripes(probability, box, image_size, threshold, pasting):
            width, height = columns.shape
            mask[top : top + height, left : left + width] = columns.T
    return masks


def encode(
    probabilities: Sequence[np.ndarray] | np.ndarray,
    boxes: np.ndarray,
    image_size: tuple[int, int],
    threshold: float,
    pasting: str,
) -> RLEMasks:
    """Return the masks of :func:`paste` in COCO's run-length encoding, without building masks of the image."""
    rles = []
    for probability, box in zip(probabilities, boxes, strict=True):
        stripes = _stripes(probability, box, image_size, threshold, pasting)
        changes = [_changes(columns, left, top, image_size[0]) for left, top, columns in stripes]
        rles.append(_rle(np.concatenate([np.zeros(0, int), *changes]), image_size))
    return RLEMasks(rles, image_size)


def _changes(columns: np.ndarray, left: int, top: int, height: int) -> np.ndarray:
    """Return the indices, column by column in the image, at which runs of the object begin and end in turn."""
    framed = np.zeros((columns.shape[0], columns.shape[1] + 2), bool)
    framed[:, 1:-1] = columns
    column, row = np.divmod(np.flatnonzero(framed.ravel()[1:] != framed.ravel()[:-1]), framed.shape[1])
    return (left + column) * height + top + row


def _rle(changes: np.ndarray, image_size: tuple[int, int]) -> dict:
    continued = np.zeros(len(changes), bool)  # runs that end at the bottom of a column and begin at the next one's top
    continued[1:-1:2] = continued[2::2] = changes[1:-1:2] == changes[2::2]
    ends = np.concatenate([changes[~continued], [image_size[0] * image_size[1]]])
    lengths = np.diff(ends, prepend=0)
    return coco_mask.frPyObjects(
        {'size': list(image_size), 'counts': lengths if lengths[-1] else lengths[:-1]}, *image_size
    )
