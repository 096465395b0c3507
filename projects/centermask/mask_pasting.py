"""From 28×28 masks in their boxes to masks of the image, in the two ways of the releases."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from torch import Tensor


def paste_exact(probabilities: Tensor, boxes: Tensor, image_size: tuple[int, int], threshold: float) -> Tensor:
    """Sample each mask bilinearly at the centres of the image's pixels (star recipe).

    Args:
        probabilities: shape (N, 28, 28).
        boxes: x1, y1, x2, y2 in pixels, shape (N, 4).
        image_size: height and width in pixels.
        threshold: a pixel belongs to the object from this probability on.

    Returns:
        Boolean masks, shape (N, height, width).
    """
    masks = torch.zeros((len(boxes), *image_size), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        pasted, where = _do_paste_mask(probabilities[i][None, None], boxes[i : i + 1], *image_size, skip_empty=True)
        masks[i][where] = pasted[0] >= threshold
    return masks


def paste_rounded(probabilities: Tensor, boxes: Tensor, image_size: tuple[int, int], threshold: float) -> Tensor:
    """Resize each mask, with a margin of one cell, to its box rounded to whole pixels (paper recipe).

    Arguments and result as :func:`paste_exact`, but for a pixel that has just the threshold: here it doesn't belong.
    """
    height, width = image_size
    masks = torch.zeros((len(boxes), height, width), dtype=torch.bool, device=boxes.device)
    size = probabilities.shape[-1]
    padded = F.pad(probabilities, (1, 1, 1, 1))  # (N, 30, 30)
    centers, half_sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * (size + 2) / size
    corners = torch.cat([centers - half_sizes, centers + half_sizes], dim=1).int().tolist()
    for mask, probability, (x1, y1, x2, y2) in zip(masks, padded, corners, strict=True):
        box_size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        resized = F.interpolate(probability[None, None], box_size, mode='bilinear', align_corners=False)[0, 0]
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x1 + box_size[1], width), min(y1 + box_size[0], height)
        if left < right and top < bottom:
            mask[top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1] > threshold
    return masks
