"""What ShapeMask's mask branch learns from the objects of an image."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pycocotools.mask as mask_utils
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.boxes import clip_boxes
from centermask.mask_targets import Mask

from .shapemask_outer_boxes import jitter_boxes, outer_boxes


class MaskTargets(NamedTuple):
    """N objects of the mask branch. Those that pad an image's are empty: class 0, boxes of zeros and empty masks."""

    boxes: Tensor  # (N, 4)
    outer: Tensor  # (N, 4)
    classes: Tensor  # (N,), 1 + label
    valid: Tensor  # (N,), whether each counts in the losses
    coarse: Tensor  # (N, 32, 32), 0 or 1
    fine: Tensor  # (N, 128, 128), 0 or 1


def targets_of_image(
    objects: InstanceData,
    noise: Tensor,
    input_size: tuple[int, int],
    coarse_size: int = 32,
    fine_size: int = 128,
    learned: Collection[int] | None = None,
) -> MaskTargets:
    """Return the targets of as many objects as there is noise for.

    Padding counts in the losses like an object, except in an image without objects.

    Args:
        objects: of an image, at most N: ``bboxes`` (n, 4) in pixels of the network's input, ``labels`` (n,), ``masks``.
        noise: of x, y, width and height, shape (N, 4); see :func:`jitter_boxes`.
        input_size: height and width of the network's input, with its padding.
        coarse_size, fine_size: cells along each side of the masks.
        learned: labels whose masks count; None is all of them.
    """
    last_pixel = input_size[0] - 1, input_size[1] - 1
    boxes, classes = torch.zeros_like(noise), torch.zeros(len(noise), dtype=torch.long, device=noise.device)
    boxes[: len(objects)] = clip_boxes(objects.bboxes, last_pixel)
    classes[: len(objects)] = objects.labels + 1
    boxes = clip_boxes(jitter_boxes(boxes, noise), last_pixel)
    outer = outer_boxes(boxes, input_size)
    valid = torch.full_like(classes, len(objects) > 0, dtype=torch.bool)
    if learned is not None:
        valid &= torch.isin(classes, torch.tensor([label + 1 for label in learned]).to(classes))

    masks = [np.zeros((len(noise), size, size), np.float32) for size in (coarse_size, fine_size)]
    image_size = objects.masks.height, objects.masks.width
    for i, (mask, box) in enumerate(zip(objects.masks.masks, outer.cpu().numpy(), strict=False)):
        for target, sampled in zip(masks, sample_in_box(mask, box, image_size, (coarse_size, fine_size)), strict=True):
            target[i] = sampled
    coarse, fine = (torch.from_numpy(target).to(noise.device) for target in masks)
    return MaskTargets(boxes, outer, classes, valid, coarse, fine)


def sample_in_box(mask: Mask, box: np.ndarray, image_size: tuple[int, int], sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Return an object's masks in a box, bool, (size, size) for each of ``sizes``.

    The first and the last sample lie on the box's sides, positions being scaled by (W − 1) / W as in TensorFlow's
    ``crop_and_resize``. Between pixels the mask is interpolated, and outside the image it is empty.

    Args:
        mask: polygons or a bitmap in pixels of an image.
        box: x1, y1, x2, y2 in the same pixels, shape (4,).
        image_size: height and width of that image.
        sizes: cells along each side of the results.
    """
    limits = np.tile(image_size[::-1], 2)
    ends = box.astype(np.float64) * (limits - 1) / limits
    left, top = np.floor(ends[:2]).clip(0, limits[:2] - 1).astype(int)
    right, bottom = (np.floor(ends[2:]) + 2).clip((left + 1, top + 1), limits[2:]).astype(int)
    bitmap = _bitmap(mask, left, top, right, bottom)
    results = []
    for size in sizes:
        x, y = (np.linspace(ends[axis], ends[axis + 2], size) for axis in (0, 1))
        inside = ((y >= 0) & (y <= image_size[0] - 1))[:, None] & (x >= 0) & (x <= image_size[1] - 1)
        results.append(inside & (_interpolate(bitmap, x - left, y - top) >= 0.5))
    return results


def _bitmap(mask: Mask, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Return the pixels of a part of the image, shape (bottom − top, right − left)."""
    if isinstance(mask, np.ndarray):
        return mask[top:bottom, left:right]
    moved = [(polygon.reshape(-1, 2) - (left, top)).ravel() for polygon in mask]
    return mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(moved, bottom - top, right - left)))


def _interpolate(bitmap: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a bitmap's values, bilinear, at columns x (n,) of rows y (n,), shape (n, n)."""

    def neighbours(positions: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first = np.floor(positions).clip(0, length - 1)
        return first.astype(int), (first + 1).clip(max=length - 1).astype(int), positions - first

    above, below, down = neighbours(y, bitmap.shape[0])
    before, after, across = neighbours(x, bitmap.shape[1])
    columns = bitmap[:, before] * (1 - across) + bitmap[:, after] * across
    return columns[above] * (1 - down)[:, None] + columns[below] * down[:, None]
