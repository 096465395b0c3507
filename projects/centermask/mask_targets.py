"""Targets of the mask branch (paper, section 2.6): objects rasterised in their RoIs, and the IoU of predicted masks.

An object is a list of flat polygons (x0, y0, x1, y1, …) in pixels of the resized image, or a bitmap of that image.
The host rasterises, by pycocotools, without a Python loop over pixels; IoUs are computed where the masks are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycocotools.mask as mask_utils
import torch
from torch import Tensor

Polygons = Sequence[np.ndarray]
Mask = Polygons | np.ndarray


def has_outline(mask: Mask) -> bool:
    """Return whether a mask covers anything.

    An object that is annotated by its box alone has a polygon without area or an empty bitmap; so has one whose visible
    part an augmentation took away.
    """
    return any(_area(part) > 1e-6 for part in _parts(mask))  # rounding gives a line an area of 1e-10


def rasterise_in_rois(objects: Sequence[Mask], rois: np.ndarray, size: int) -> np.ndarray:
    """Rasterise objects in the frames of their RoIs.

    RoIs aren't clipped to the image, and one thinner than 0.1 pixel counts as 0.1.

    Args:
        objects: each RoI's object.
        rois: x1, y1, x2, y2 in pixels, shape (R, 4).
        size: height and width of the result.

    Returns:
        Masks of 0 and 1, shape (R, size, size), float32.
    """
    masks = np.zeros((len(rois), size, size), np.float32)
    scales = size / np.maximum(rois[:, 2:] - rois[:, :2], 0.1)
    polygons, of_rois = [], []  # all at once, for each call of pycocotools takes as long as a polygon
    for i, (mask, roi, scale) in enumerate(zip(objects, rois, scales, strict=True)):
        if isinstance(mask, np.ndarray):
            masks[i] = _sample(mask, roi[:2], 1 / scale, (size, size))
        else:
            polygons += [((polygon.reshape(-1, 2) - roi[:2]) * scale).ravel() for polygon in mask]
            of_rois += [i] * len(mask)
    if polygons:
        drawn = mask_utils.decode(mask_utils.frPyObjects(polygons, size, size))  # (size, size, polygons)
        for i, polygon in zip(of_rois, drawn.transpose(2, 0, 1), strict=True):
            np.maximum(masks[i], polygon, out=masks[i])
    return masks


def _sample(bitmap: np.ndarray, corner: np.ndarray, cell: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Read a bitmap at the centres of a grid of (rows, columns) cells whose top left corner lies at ``corner``.

    This is where pycocotools rasterises a polygon. Between pixels the bitmap is interpolated, beyond it nothing is set.

    Args:
        bitmap: shape (H, W).
        corner, cell: x and y in pixels.
        size: rows and columns.

    Returns:
        bool, shape ``size``.
    """
    y, x = (corner[i] + (np.arange(size[1 - i]) + 0.5) * cell[i] - 0.5 for i in (1, 0))
    height, width = bitmap.shape
    sampled = np.zeros(size)
    for rows in (np.floor(y), np.floor(y) + 1):
        for columns in (np.floor(x), np.floor(x) + 1):
            inside = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
            pixels = bitmap[rows.clip(0, height - 1).astype(int)[:, None], columns.clip(0, width - 1).astype(int)]
            sampled += (inside & (pixels > 0)) * (1 - abs(y - rows))[:, None] * (1 - abs(x - columns))
    return sampled >= 0.5


def _parts(mask: Mask) -> Sequence[np.ndarray]:
    """Return the polygons of an object, or its one bitmap."""
    return [mask] if isinstance(mask, np.ndarray) else mask


def _area(part: np.ndarray) -> float:
    """Return the exact area of a polygon, or the number of a bitmap's pixels."""
    if part.ndim == 2:
        return float(np.count_nonzero(part))
    x, y = np.append(part[-2:], part).reshape(-1, 2).T.copy()  # closed
    return 0.5 * abs(float(np.dot(x[1:], y[:-1]) - np.dot(y[1:], x[:-1])))


def _raster_area(part: np.ndarray, corner: np.ndarray, height: float, width: float) -> float:
    """Count pixels on a canvas whose top left corner lies at ``corner`` and whose size is rounded down.

    Args:
        part: a polygon or a bitmap.
    """
    rows, columns = int(height), int(width)
    if rows <= 0 or columns <= 0:  # which pycocotools takes for endless or refuses
        return 0.0
    if part.ndim == 2:
        return float(_sample(part, corner, np.ones(2), (rows, columns)).sum())
    moved = (part.reshape(-1, 2) - corner).ravel()
    return float(mask_utils.area(mask_utils.frPyObjects([moved], rows, columns)).sum())


def area_ratio_of_polygons(mask: Mask, roi: np.ndarray) -> float:
    """Return the part of an object inside an RoI, in [0, 1]: its pixels in the RoI over the exact area of its polygons.

    The rule of the second release (star). A bitmap's area is the number of its pixels.

    Args:
        mask: the object.
        roi: x1, y1, x2, y2 in pixels, shape (4,).
    """
    full = sum(_area(part) for part in _parts(mask))
    width, height = roi[2:] - roi[:2]
    inside = sum(_raster_area(part, roi[:2], height, width) for part in _parts(mask))
    return min(inside / full, 1.0) if full > 0 else 0.0


def area_ratio_of_first_polygon(mask: Mask, roi: np.ndarray, image_size: tuple[int, int]) -> float:
    """Return the part of an object's first polygon inside an RoI, both areas counted in pixels.

    The rule of the first release (paper), which ignores all other polygons; of a bitmap all counts. The canvas of the
    whole polygon covers RoI and polygon inside the image, but not the image's last row and column.

    Args:
        mask: the object.
        roi: x1, y1, x2, y2 in pixels, shape (4,).
        image_size: height and width of the resized image.
    """
    # In float32, as in the release: sizes are rounded down, so the last bit decides.
    roi = roi.astype(np.float32)
    if isinstance(mask, np.ndarray):
        first, full = mask, _area(mask[:-1, :-1])
    else:
        first = mask[0].astype(np.float32)
        points = first.reshape(-1, 2)
        limit = np.array(image_size[::-1]) - 1
        corner = np.maximum(np.minimum(roi[:2].astype(int), points.min(0)), 0)
        end = np.minimum(np.maximum(roi[2:].astype(int) + 1, points.max(0)), limit)
        full = _raster_area(first, corner, end[1] - corner[1], end[0] - corner[0])
    inside = _raster_area(first, roi[:2], roi[3] - roi[1], roi[2] - roi[0])
    return inside / full if full > 0 else 0.0


def mask_iou_targets(predicted: Tensor, targets: Tensor, area_ratios: Tensor) -> Tensor:
    """Return the IoU of predicted masks with whole objects, also with their parts outside the RoIs.

    An object's full area is its area inside the RoI divided by its area ratio.

    Args:
        predicted, targets: masks of 0 and 1 in the RoIs' frames, shape (R, 28, 28).
        area_ratios: part of each object inside its RoI, in [0, 1], shape (R,).

    Returns:
        IoU, shape (R,), float32; 0 for an object completely outside its RoI.
    """
    predicted, targets, area_ratios = predicted.double(), targets.double(), area_ratios.double()
    intersection = (predicted * targets).sum((1, 2))
    full = targets.sum((1, 2)) / area_ratios.where(area_ratios > 0, torch.inf)
    union = predicted.sum((1, 2)) + full - intersection
    known = (area_ratios > 0) & (union > 0)
    return (intersection / union.clamp(min=1e-7)).where(known, 0.0).float()
