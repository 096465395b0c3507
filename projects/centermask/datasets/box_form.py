"""Boxes that an annotation file gives in another form than COCO's, found by comparing them with their outlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# IoU of a box with that of its outline, below which one of them is wrong.
MIN_BOX_IOU = 0.8
# The part of the boxes that must not fit before another form is looked for, and the part of these that it must fit.
LEAST_WRONG, LEAST_MENDED = 0.1, 0.9
# What four numbers may mean, and how they become x, y, width and height.
ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'corners (x1, y1, x2, y2)': lambda b: np.hstack([b[:, :2], b[:, 2:] - b[:, :2]]),
    'centres (x and y of the centre, width, height)': lambda b: np.hstack([b[:, :2] - b[:, 2:] / 2, b[:, 2:]]),
    'x, y, width and height': lambda b: b,
    'corners with y first (y1, x1, y2, x2)': lambda b: np.hstack([b[:, 1::-1], (b[:, 2:] - b[:, :2])[:, ::-1]]),
    'y, x, height and width': lambda b: b[:, [1, 0, 3, 2]],
}
# Lengths that the width and the height of an image may count as.
UNITS = (1, 100, 1000)


class BoxForm(NamedTuple):
    """A form of boxes.

    Attributes:
        order: Key of ``ORDERS``.
        unit: What the image's width and height count as; 0 for pixels.
        scale: Factors from the boxes' lengths to pixels along x and y; None where they differ from image to image.
        wrong, compared: Number of boxes that don't fit their outlines, and of those compared.
        everywhere: Whether all boxes have this form, not only those that don't fit.
    """

    order: str
    unit: int = 0
    scale: tuple[float, float] | None = (1.0, 1.0)
    wrong: int = 0
    compared: int = 0
    everywhere: bool = True

    def __str__(self) -> str:
        if self.unit:
            scale = f', from 0 to {self.unit} across the image'
        elif self.scale is None:
            scale = ', at a scale of each image, as if the images had been resized and their boxes not'
        else:
            wide, high = (f'{1 / factor:.3g}' for factor in self.scale)
            scale = f', {wide} times as wide and {high} times as high as the outlines' if self.scale != (1, 1) else ''
        return f'{self.wrong} of {self.compared} boxes do not fit their outlines and would as {self.order}{scale}'

    def mend(self, box: list[float], outline: np.ndarray | None, size: tuple[int, int]) -> list[float]:
        """Return a box in COCO's form, empty where that needs its outline.

        Args:
            box: Four numbers, as in the file.
            outline: Box of the outline: x, y, width and height in pixels; None without one.
            size: Width and height of the image.
        """
        if not self.everywhere and (outline is None or fit(box, outline)):
            return box
        mended = self.to_coco(np.array([box], dtype=np.float64), np.array([size]))[0]
        return [] if np.isnan(mended).any() else mended.round(4).tolist()

    def to_coco(self, boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Return boxes (N, 4) on images of these widths and heights (N, 2) as x, y, width and height in pixels.

        Without a common scale they are NaN.
        """
        factors = sizes / self.unit if self.unit else np.broadcast_to(self.scale or (np.nan, np.nan), sizes.shape)
        return ORDERS[self.order](boxes) * np.tile(factors, 2)


def fits(boxes: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Return whether each of N boxes, given as x, y, width and height, is that of its outline, shape (N,)."""
    starts = np.maximum(boxes[:, :2], outlines[:, :2])
    ends = np.minimum(boxes[:, :2] + boxes[:, 2:], outlines[:, :2] + outlines[:, 2:])
    common = np.prod(np.maximum(ends - starts, 0), axis=1)
    union = np.prod(boxes[:, 2:], axis=1) + np.prod(outlines[:, 2:], axis=1) - common
    return (boxes[:, 2:] > 0).all(axis=1) & (common >= MIN_BOX_IOU * union)


def fit(box: Sequence[float] | np.ndarray, outline: np.ndarray) -> bool:
    """Return whether one box, given as x, y, width and height, is that of its outline."""
    return bool(fits(np.array([box], dtype=np.float64), outline[None])[0])


def find_box_form(boxes: np.ndarray, outlines: np.ndarray, sizes: np.ndarray) -> BoxForm | None:
    """Return the form in which boxes fit their outlines, None where they do as COCO has them or in no form.

    Args:
        boxes: Four numbers of each of N objects, as in the file, shape (N, 4).
        outlines: Boxes of their outlines: x, y, width and height in pixels, shape (N, 4).
        sizes: Widths and heights of their images, shape (N, 2).
    """
    wrong = ~fits(boxes, outlines)
    if not len(boxes) or wrong.sum() < max(min(2, len(boxes)), LEAST_WRONG * len(boxes)):
        return None
    forms = [BoxForm(order, unit) for unit in (0, *UNITS) for order in ORDERS]
    with np.errstate(all='ignore'):  # boxes without a width
        candidates = [(form, form.to_coco(boxes, sizes)) for form in forms]
        if wrong.sum() > 2:  # fewer would fit by chance
            given = {order: to_xywh(boxes) for order, to_xywh in ORDERS.items()}
            factors = {order: outlines[:, 2:] / given[order][:, 2:] for order in ORDERS}
            common = {order: np.nanmedian(factors[order][wrong], axis=0) for order in ORDERS}
            candidates += [
                (BoxForm(order, 0, (*common[order],)), given[order] * np.tile(common[order], 2)) for order in ORDERS
            ]
            candidates += [(BoxForm(order, 0, None), given[order] * np.tile(factors[order], 2)) for order in ORDERS]
        for form, in_pixels in candidates:
            mended = fits(in_pixels, outlines)
            if mended[wrong].mean() >= LEAST_MENDED:
                everywhere = bool(mended.mean() >= LEAST_MENDED)
                return form._replace(wrong=int(wrong.sum()), compared=len(boxes), everywhere=everywhere)
    return None
