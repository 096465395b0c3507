"""ShapeMask's coding of boxes relative to anchors."""

from __future__ import annotations

import math

import torch
from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.registry import TASK_UTILS
from torch import Tensor

from centermask.boxes import clip_boxes

MAX_LOG_SCALE = math.log(1000 / 16)
EPSILON = 1e-8


@TASK_UTILS.register_module()
class ShapeMaskBoxCoder(BaseBBoxCoder):
    """Centre and size of a box in units of its anchor, as the release codes them.

    It encodes with the sides w and h, and decodes with w + 1 and h + 1, so decoding doesn't undo encoding: they are up
    to 1.4 pixels apart. MMDetection's coders use one of these conventions for both.
    """

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Return the deltas (dx, dy, dw, dh), shape (N, 4), that lead from anchors to objects.

        Args:
            bboxes, gt_bboxes: anchors and their objects in pixels, shape (N, 4). A side of an object may be 0.
        """
        size, gt_size = bboxes[:, 2:] - bboxes[:, :2], gt_bboxes[:, 2:] - gt_bboxes[:, :2]
        center, gt_center = bboxes[:, :2] + size / 2, gt_bboxes[:, :2] + gt_size / 2
        size, gt_size = size + EPSILON, gt_size + EPSILON
        return torch.cat([(gt_center - center) / size, (gt_size / size).log()], dim=1)

    def decode(self, bboxes: Tensor, pred_bboxes: Tensor, max_shape: tuple[int, int] | None = None) -> Tensor:
        """Return the boxes in pixels, shape (N, 4), that deltas lead to.

        Args:
            bboxes: anchors in pixels, shape (N, 4).
            pred_bboxes: deltas, shape (N, 4). A box is at most 62.5 times as wide and high as its anchor.
            max_shape: height and width; boxes are clipped to [0, width − 1] × [0, height − 1].
        """
        size = bboxes[:, 2:] - bboxes[:, :2] + 1
        center = bboxes[:, :2] + size / 2 + pred_bboxes[:, :2] * size
        size = size * pred_bboxes[:, 2:].clamp(max=MAX_LOG_SCALE).exp()
        boxes = torch.cat([center - size / 2, center + size / 2 - 1], dim=1)
        return boxes if max_shape is None else clip_boxes(boxes, (max_shape[0] - 1, max_shape[1] - 1))
