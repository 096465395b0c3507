"""Run-length encoded masks as polygons, from which the mask targets are computed."""

from __future__ import annotations

import cv2
import numpy as np
import pycocotools.mask as mask_utils


def rle_to_polygons(rle: dict) -> list[np.ndarray]:
    """Outline the pixels of a mask.

    Polygons run along the edges of pixels, not through their centres, so parts one pixel thin keep their width. A hole
    is joined to the outline around it by a line walked there and back: the even-odd rule of pycocotools and the signed
    area both leave it out.

    Args:
        rle: COCO's run-length encoding with ``size`` (H, W) and ``counts``, compressed or a list of numbers.

    Returns:
        One polygon (x1, y1, x2, y2, ...) in pixels, float64, for each part of the mask; parts that touch only at a
        corner are one. None for an empty mask.
    """
    height, width = rle['size']
    mask = mask_utils.decode(mask_utils.frPyObjects(rle, height, width) if isinstance(rle['counts'], list) else rle)
    left, top, w, h = cv2.boundingRect(mask)
    if w == 0:
        return []

    # Pixel corners lie at even indices of this grid: OpenCV links centres of cells, and so links corners.
    grid = np.zeros((2 * h + 1, 2 * w + 1), np.uint8)
    pixels = np.kron(mask[top : top + h, left : left + w], np.ones((2, 2), np.uint8))
    for dy in (0, 1):
        for dx in (0, 1):
            grid[dy : dy + 2 * h, dx : dx + 2 * w] |= pixels

    contours, hierarchy = cv2.findContours(grid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [contour.reshape(-1, 2) / 2 + (left, top) for contour in contours]
    parents = hierarchy[0, :, 3]
    outlines = {i: [ring] for i, ring in enumerate(rings) if parents[i] < 0}
    for ring, parent in zip(rings, parents, strict=True):
        if parent >= 0:
            outlines[parent] += [rings[parent][:1], ring, ring[:1]]
    return [np.concatenate(parts).reshape(-1) for parts in outlines.values()]
