"""Drawing of panoptic maps: every segment in its class's colour, labels inside, a legend where they have no room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw

from centermask.structures.captions import Caption, Colour, draw_legend, overlaps

MAX_COVERED = 0.5  # of a segment by its label


def draw_panoptic(
    image: np.ndarray,
    panoptic: np.ndarray,
    names: Sequence[str],
    colours: Sequence[Colour],
    alpha: float,
    font_size: int,
    max_labelled: int,
) -> np.ndarray:
    """Return an RGB image (H, W, 3) with its segments drawn and, where not all have labels, a legend beside it.

    Args:
        image: resized or not, uint8.
        panoptic: MMDetection's panoptic map (h, w) of the original image: label + 1000 · number of the instance, where
            ``len(names)`` is void.
        names, colours: of the classes of things, then of stuff.
        alpha: how much of a segment's colour covers the image.
        font_size: in pixels.
        max_labelled: the most segments that have labels.
    """
    values, inverse = np.unique(panoptic, return_inverse=True)
    labels = values % INSTANCE_OFFSET
    segments = np.flatnonzero(labels < len(names))
    if not len(segments):
        return image.copy()
    size = image.shape[1::-1]
    numbers = cv2.resize(inverse.reshape(panoptic.shape).astype(np.int32), size, interpolation=cv2.INTER_NEAREST_EXACT)
    fill = np.zeros((len(values), 3), np.float32)
    fill[segments] = [colours[label] for label in labels[segments]]
    share = np.zeros((len(values), 1), np.float32)
    share[segments] = alpha
    drawn = (image * (1 - share[numbers]) + (share * fill)[numbers]).astype(np.uint8)
    drawn[_borders(numbers)] = 255

    present = labels[segments].tolist()
    if len(segments) <= max_labelled:
        captions = [Caption(names[label], '', colours[label]) for label in present]
        places = _places(numbers, segments, [caption.size(font_size) for caption in captions])
        canvas = Image.fromarray(drawn)
        draw = ImageDraw.Draw(canvas)
        for caption, place in zip(captions, places, strict=True):
            if place is not None:
                caption.draw(draw, *place, font_size)
        drawn = np.asarray(canvas)
        if None not in places:
            return drawn
    rows = [(names[label], count, colours[label]) for label, count in Counter(present).most_common()]
    title = f'{len(segments)} segment{"s" * (len(segments) > 1)}'
    return np.hstack([drawn, draw_legend(title, rows, len(drawn), font_size)])


def _borders(numbers: np.ndarray) -> np.ndarray:
    """Return where the segment of a pixel (H, W) is not that of the next pixel on the right or below."""
    borders = np.zeros(numbers.shape, bool)
    borders[:, :-1] |= numbers[:, :-1] != numbers[:, 1:]
    borders[:-1] |= numbers[:-1] != numbers[1:]
    return borders


def _places(
    numbers: np.ndarray, segments: np.ndarray, sizes: Sequence[tuple[int, int]]
) -> list[tuple[int, int] | None]:
    """Return the upper left corner of each segment's label, around its innermost pixel; None where it has no room.

    A label overlaps no other one, leaves the image nowhere, and covers at most half as many pixels as its segment has.

    Args:
        numbers: segment of each pixel (H, W).
        segments: their numbers.
        sizes: width and height of each label.
    """
    height, width = numbers.shape
    areas = np.bincount(numbers.ravel(), minlength=segments.max() + 1)[segments]
    places: list[tuple[int, int] | None] = [None] * len(segments)
    taken = np.empty((0, 4))
    for i in np.argsort(-areas, kind='stable'):
        w, h = sizes[i]
        if w * h > MAX_COVERED * areas[i]:
            continue
        inside = (numbers == segments[i]).astype(np.uint8)
        depth = cv2.distanceTransform(cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 3)
        y, x = np.unravel_index(depth[1:-1, 1:-1].argmax(), inside.shape)
        left = int(np.clip(x - w // 2, 0, max(width - w, 0)))
        top = int(np.clip(y - h // 2, 0, max(height - h, 0)))
        label = np.array([left, top, left + w, top + h])
        if label[2] <= width and label[3] <= height and not overlaps(label, taken).any():
            places[i] = (left, top)
            taken = np.vstack([taken, label])
    return places


def panoptic_truth(instances: InstanceData, semantic: np.ndarray, things: int, stuff: int) -> np.ndarray:
    """Return the panoptic map (H, W) of ground truth, where a smaller object is before a larger one.

    Args:
        instances: with ``labels`` and ``masks``, polygons or bitmaps.
        semantic: semantic map (H, W): 0 is every thing, 1 … ``stuff`` the classes of stuff, else void.
        things, stuff: numbers of classes.
    """
    panoptic = np.where((semantic > 0) & (semantic <= stuff), things - 1 + semantic.astype(np.int64), things + stuff)
    masks: BitmapMasks | PolygonMasks = instances.masks
    for i in np.argsort(-masks.areas, kind='stable'):
        inside = masks[int(i)].to_ndarray()[0].astype(bool)
        panoptic[inside] = int(instances.labels[i]) + INSTANCE_OFFSET * (int(i) + 1)
    return panoptic
