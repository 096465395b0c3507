"""IoU of boxes that end inside their last pixel, the paper recipe's convention."""

from __future__ import annotations

from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor


@TASK_UTILS.register_module()
class LegacyBboxOverlaps2D:
    """IoU whose widths and heights are x2 − x1 + 1 and y2 − y1 + 1."""

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = 'iou', is_aligned: bool = False) -> Tensor:
        """Return overlaps (N, M) of boxes (N, 4) and (M, 4) in pixels."""
        one = bboxes1.new_tensor([0, 0, 1, 1])
        return bbox_overlaps(bboxes1 + one, bboxes2 + one, mode, is_aligned)
