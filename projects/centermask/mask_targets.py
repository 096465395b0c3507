"""Targets of the mask branch (paper, section 2.6): objects rasterised in their RoIs, and the IoU of predicted masks.

Objects are lists of flat polygons (x0, y0, x1, y1, …) in pixels of the resized image. Everything is NumPy: polygons
stay on the host, and pycocotools rasterises them without a Python loop over pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycocotools.mask as mask_utils

Polygons = Sequence[np.ndarray]


def rasterise_in_rois(objects: Sequence[Polygons], rois: np.ndarray, size: int) -> np.ndarray:
    """Rasterise objects in the frames of their RoIs.

    RoIs aren't clipped to the image, and one thinner than 0.1 pixel counts as 0.1.

    Args:
        objects: the polygons of each RoI's object.
        rois: x1, y1, x2, y2 in pixels, shape (R, 4).
        size: height and width of the result.

    Returns:
        Masks of 0 and 1, shape (R, size, size), float32.
    """
    if not len(rois):
        return np.zeros((0, size, size), np.float32)
    scales = size / np.maximum(rois[:, 2:] - rois[:, :2], 0.1)
    encoded = []
    for polygons, roi, scale in zip(objects, rois, scales, strict=True):
        in_roi = [((polygon.reshape(-1, 2) - roi[:2]) * scale).ravel() for polygon in polygons]
        encoded.append(mask_utils.merge(mask_utils.frPyObjects(in_roi, size, size)))
    return mask_utils.decode(encoded).transpose(2, 0, 1).astype(np.float32)


def _polygon_area(polygon: np.ndarray) -> float:
    x, y = polygon[::2], polygon[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def _raster_area(polygon: np.ndarray, corner: np.ndarray, height: float, width: float) -> float:
    """Count a polygon's pixels on a canvas whose top left corner lies at ``corner`` and whose size is rounded down."""
    moved = (polygon.reshape(-1, 2) - corner).ravel()
    return float(mask_utils.area(mask_utils.frPyObjects([moved], int(height), int(width))).sum())


def area_ratio_of_polygons(polygons: Polygons, roi: np.ndarray) -> float:
    """Return the part of an object inside an RoI, in [0, 1]: its pixels in the RoI over the exact area of its polygons.

    The rule of the second release (star).

    Args:
        polygons: the object.
        roi: x1, y1, x2, y2 in pixels, shape (4,).
    """
    full = sum(_polygon_area(polygon) for polygon in polygons)
    width, height = roi[2:] - roi[:2]
    inside = sum(_raster_area(polygon, roi[:2], height, width) for polygon in polygons)
    return min(inside / full, 1.0) if full > 0 else 0.0


def area_ratio_of_first_polygon(polygons: Polygons, roi: np.ndarray, image_size: tuple[int, int]) -> float:
    """Return the part of an object's first polygon inside an RoI, both areas counted in pixels.

    The rule of the first release (paper), which ignores all other polygons. The canvas of the whole polygon covers RoI
    and polygon inside the image.

    Args:
        polygons: the object.
        roi: x1, y1, x2, y2 in pixels, shape (4,).
        image_size: height and width of the resized image.
    """
    # In float32, as in the release: sizes are rounded down, so the last bit decides.
    polygon, roi = polygons[0].astype(np.float32), roi.astype(np.float32)
    points = polygon.reshape(-1, 2)
    limit = np.array(image_size[::-1]) - 1
    corner = np.maximum(np.minimum(roi[:2].astype(int), points.min(0)), 0)
    end = np.minimum(np.maximum(roi[2:].astype(int) + 1, points.max(0)), limit)
    full = _raster_area(polygon, corner, end[1] - corner[1], end[0] - corner[0])
    inside = _raster_area(polygon, roi[:2], roi[3] - roi[1], roi[2] - roi[0])
    return inside / full if full > 0 else 0.0


def mask_iou_targets(predicted: np.ndarray, targets: np.ndarray, area_ratios: np.ndarray) -> np.ndarray:
    """Return the IoU of predicted masks with whole objects, also with their parts outside the RoIs.

    An object's full area is its area inside the RoI divided by its area ratio.

    Args:
        predicted, targets: masks of 0 and 1 in the RoIs' frames, shape (R, 28, 28).
        area_ratios: part of each object inside its RoI, in [0, 1], shape (R,).

    Returns:
        IoU, shape (R,), float32; 0 for an object completely outside its RoI.
    """
    intersection = (predicted * targets).sum((1, 2))
    full = targets.sum((1, 2)) / np.where(area_ratios > 0, area_ratios, np.inf)
    union = predicted.sum((1, 2)) + full - intersection
    return np.where((area_ratios > 0) & (union > 0), intersection / np.maximum(union, 1e-7), 0.0).astype(np.float32)
