"""Look at one object's outline and box, and mend what can be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import shapely
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from centermask.datasets.annotations import box_has_area, mask_area, usable_segmentation
from centermask.datasets.checking import findings as kinds
from centermask.datasets.rle import rle_to_polygons
from centermask.datasets.shapes import solid_pieces

# Pixels that an outline may lie outside of the image; tools that round leave this much.
SLACK = 1.0
LEAST_AREA = 0.01
# IoU of a box with the one around its polygons, under which it isn't theirs.
LEAST_BOX_IOU = 0.8


class Examined(NamedTuple):
    """What is wrong with an object, and how it would be right: None where nothing of it can be used."""

    found: list[str]
    mended: dict | None
    trained: bool


def examine(annotation: dict, width: int, height: int) -> Examined:
    """Look at an object whose image and category exist.

    Args:
        annotation: an entry with the fields that ``datasets.annotations`` needs.
        width, height: of the image in pixels.

    Returns:
        Findings, the mended entry, and whether training uses the object as it is.
    """
    image = {'width': width, 'height': height}
    crowd = bool(annotation.get('iscrowd'))
    segmentation, flaw = usable_segmentation(annotation.get('segmentation'), height, width)
    if crowd:
        mended = {**annotation, 'iscrowd': 1, 'area': annotation.get('area') or _box_area(annotation['bbox'])}
        usable = box_has_area(mended, image)
        # Without a usable outline its box is left alone, which is enough.
        return Examined([] if usable else [kinds.BOX_UNUSABLE], mended if usable else None, usable)
    if not segmentation:
        return Examined([flaw or ''], None, False)

    found = [flaw] if flaw else []
    if isinstance(segmentation, dict):
        found.append(kinds.RLE)
        polygons, pieces = rle_to_polygons(segmentation), None
    else:
        polygons, pieces = segmentation, []
        for polygon in segmentation:
            pieces += _mend(Polygon(polygon.reshape(-1, 2)), width, height, found)
    area = annotation.get('area') or 0
    area = area if area > 0 else mask_area({**annotation, 'segmentation': segmentation}, height, width)
    usable = box_has_area({**annotation, 'area': area}, image)
    if pieces == []:
        return Examined([kind for kind in found if kind != kinds.FLAT] + [kinds.NO_AREA], None, usable)

    stated = _bounds(polygons)
    if pieces is not None and found:
        polygons = [np.round(np.array(piece.exterior.coords)[:-1], 2).ravel() for piece in pieces]
    bounds = _bounds(polygons)
    if not usable:
        found.append(kinds.BOX_UNUSABLE)
    elif max(_iou(annotation['bbox'], stated), _iou(annotation['bbox'], bounds)) < LEAST_BOX_IOU:
        found.append(kinds.BOX)
    mended = {**annotation, 'iscrowd': 0, 'area': area}
    if found:
        box = [float(value) for value in (*bounds[:2], *(bounds[2:] - bounds[:2]))]
        mended['segmentation'] = [polygon.tolist() for polygon in polygons]
        mended['area'] = mask_area({'segmentation': polygons}, height, width)
        mended['bbox'] = [round(value, 2) for value in box]
    return Examined(found, mended if box_has_area(mended, image) else None, usable)


def _mend(outline: Polygon, width: int, height: int, found: list[str]) -> list[Polygon]:
    """Pieces without crossings, inside the image, of one polygon; adds to the object's findings."""
    shape: BaseGeometry = outline
    if not outline.is_valid:
        shape = shapely.make_valid(outline)  # by the even-odd rule, as pycocotools fills
    if shape.area < LEAST_AREA:
        _add(found, kinds.FLAT)
        return []
    if not outline.is_valid:
        _add(found, kinds.CROSSING)
    left, top, right, bottom = shape.bounds
    if left < -SLACK or top < -SLACK or right > width + SLACK or bottom > height + SLACK:
        _add(found, kinds.OUTSIDE)
        shape = shape.intersection(shapely.box(0, 0, width, height))
    return [piece for piece in solid_pieces(shape) if piece.area >= LEAST_AREA]


def _add(found: list[str], kind: str) -> None:
    if kind not in found:
        found.append(kind)


def _box_area(box: Any) -> float:
    return box[2] * box[3]


def _bounds(polygons: list[np.ndarray]) -> np.ndarray:
    """x1, y1, x2, y2 of the box around polygons."""
    points = np.concatenate([polygon.reshape(-1, 2) for polygon in polygons])
    return np.concatenate([points.min(0), points.max(0)])


def _iou(box: Any, bounds: np.ndarray) -> float:
    x, y, w, h = box
    width = min(x + w, bounds[2]) - max(x, bounds[0])
    height = min(y + h, bounds[3]) - max(y, bounds[1])
    shared = max(width, 0) * max(height, 0)
    return shared / max(w * h + float(np.prod(bounds[2:] - bounds[:2])) - shared, 1e-9)
