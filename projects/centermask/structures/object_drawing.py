"""Drawing of objects on an image: masks, boxes, labels. A frame of a video takes a few milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData

from centermask.structures.captions import Caption, Colour, place_labels
from centermask.structures.rle_masks import RLEMasks

LARGE = 40  # pixels of the shorter side of objects that are outlined two pixels wide
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class Crop(NamedTuple):
    """A mask, uint8 of 0 and 1 (h, w), whose first pixel is at (left, top) of the drawn image."""

    mask: np.ndarray
    left: int
    top: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """Return the part of an image (H, W, 3) under the mask's pixels, as a view."""
        height, width = self.mask.shape
        return image[self.top : self.top + height, self.left : self.left + width]


def draw_objects(
    drawn: np.ndarray, instances: InstanceData, scale: float, colours: Sequence[Colour], alpha: float, with_boxes: bool
) -> np.ndarray:
    """Draw masks and boxes on an image (H, W, 3), the largest first.

    Args:
        drawn: the image, changed.
        instances: with masks or boxes in pixels before the image was resized.
        scale: factor of the resizing.
        colours: of each object.
        alpha: how much of a colour covers the image.
        with_boxes: draw the boxes of objects that have masks too.

    Returns:
        Boxes (N, 4) of what was drawn.
    """
    boxes = instances.get('bboxes')
    boxes = np.asarray(getattr(boxes, 'tensor', boxes) if boxes is not None else np.zeros((len(colours), 4)), float)
    boxes = np.nan_to_num(boxes * scale).clip(-1, max(drawn.shape))
    crops = list(_crops(instances.get('masks'), len(colours), scale, drawn.shape[:2]))
    shown = boxes.copy()
    for i, crop in enumerate(crops):
        if crop is not None and not (with_boxes and (boxes[i, 2:] > boxes[i, :2]).all()):
            height, width = crop.mask.shape
            shown[i] = (crop.left, crop.top, crop.left + width, crop.top + height)
    sizes = shown[:, 2:] - shown[:, :2]
    width = 2 if np.median(sizes.min(1)) >= LARGE else 1
    order = np.argsort(-sizes.prod(1), kind='stable')
    for i in order:
        if (crop := crops[i]) is not None:
            region = crop.of(drawn)
            cv2.copyTo(cv2.addWeighted(region, 1 - alpha, _filled(region, colours[i]), alpha, 0), crop.mask, region)
    for i in order:
        if (crop := crops[i]) is not None:
            inside = cv2.erode(crop.mask, CROSS, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            region = crop.of(drawn)
            cv2.copyTo(_filled(region, colours[i]), crop.mask - inside, region)
        if crop is None or with_boxes:
            x1, y1, x2, y2 = boxes[i].round().astype(int).tolist()
            cv2.rectangle(drawn, (x1, y1), (x2 - 1, y2 - 1), colours[i])
    return shown


def _filled(region: np.ndarray, colour: Colour) -> np.ndarray:
    """Return an image of the shape of another (h, w, 3), all of one colour."""
    filled = np.empty(region.shape, np.uint8)
    filled[:] = colour
    return filled


def _crops(masks: Any, number: int, scale: float, size: tuple[int, int]) -> Iterator[Crop | None]:
    """Yield the resized masks of objects, one at a time; None for an object without one.

    Args:
        masks: run-length encoded, polygons, bitmaps, an array or a tensor (N, H, W), or None.
        number: of objects.
        scale: factor of the resizing.
        size: height and width of the drawn image.
    """
    if masks is None:
        yield from [None] * number
    elif isinstance(masks, PolygonMasks):
        for parts in masks.masks:
            yield _fill([np.reshape(part, (-1, 2)) * scale - 0.5 for part in parts], size)
    elif isinstance(masks, RLEMasks):
        for rle in masks:
            part, x, y = rle.crop()
            yield _resize(part, x, y, scale, size)
    else:
        for mask in masks.masks if isinstance(masks, BitmapMasks) else np.asarray(masks, bool):
            x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
            yield _resize(mask[y : y + height, x : x + width], x, y, scale, size)


def _fill(parts: Sequence[np.ndarray], size: tuple[int, int]) -> Crop | None:
    """Return the inside of polygons (N, 2) in pixels of an image of a size (height, width)."""
    if not parts:
        return None
    points = np.concatenate(parts)
    left, top = np.floor(points.min(0)).astype(int).clip(0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 1, size[::-1])
    if right <= left or bottom <= top:
        return None
    mask = np.zeros((bottom - top, right - left), np.uint8)
    for part in parts:
        cv2.fillPoly(mask, [np.round((part - (left, top)) * 16).astype(np.int32)], 1, shift=4)
    return Crop(mask, left, top) if mask.any() else None


def _resize(part: np.ndarray, x: int, y: int, scale: float, size: tuple[int, int]) -> Crop | None:
    """Return the part of a mask (h, w) at (x, y) as it is in the resized image of a size (height, width)."""
    left, top = int(x * scale), int(y * scale)
    right = min(int(np.ceil((x + part.shape[1]) * scale)), size[1])
    bottom = min(int(np.ceil((y + part.shape[0]) * scale)), size[0])
    if right <= left or bottom <= top or not part.size:
        return None
    if scale == 1:
        mask = np.ascontiguousarray(part[: bottom - top, : right - left], np.uint8)
        return Crop(mask, left, top) if mask.any() else None
    shift = ((x + 0.5) * scale - 0.5 - left, (y + 0.5) * scale - 0.5 - top)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    resized = cv2.warpAffine(part.astype(np.uint8) * 255, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    mask = (resized > 127).astype(np.uint8)
    return Crop(mask, left, top) if mask.any() else None


def draw_labels(drawn: np.ndarray, boxes: np.ndarray, captions: Sequence[Caption], font_size: int) -> bool:
    """Draw the labels that have room on an RGB image (H, W, 3); return whether all had.

    Args:
        drawn: the image, changed.
        boxes: (N, 4) of the objects in pixels.
        captions: of the objects.
        font_size: in pixels.
    """
    pictures = [caption.picture(font_size) for caption in captions]
    places = place_labels(boxes, [(picture.shape[1], picture.shape[0]) for picture in pictures], drawn.shape[:2])
    for picture, place in zip(pictures, places, strict=True):
        if place is not None:
            (left, top), (height, width) = place, picture.shape[:2]
            drawn[top : top + height, left : left + width] = picture
    return None not in places
