"""ShapeMask's choice of the anchors that learn an object."""

from __future__ import annotations

import torch
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class ShapeMaskAssigner(MaxIoUAssigner):
    """Assignment by IoU ≥ 0.5; each object also gets its best anchor, whatever their IoU.

    An anchor that is the best of several objects learns the first; in :class:`mmdet.models.MaxIoUAssigner`, the last.
    Of an object's equally good anchors only the first is its best.
    """

    def __init__(self) -> None:
        super().__init__(pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False)

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Return the assignment of anchors: 1 + the index of their object, or 0.

        Args:
            overlaps: IoU, shape (objects, anchors).
            gt_labels: classes of the objects, shape (objects,).
        """
        result = super().assign_wrt_overlaps(overlaps, gt_labels)
        if not len(gt_labels):
            return result
        number = torch.arange(1, len(gt_labels) + 1, device=overlaps.device)
        none = len(gt_labels) + 1
        first = torch.full_like(result.gt_inds, none).scatter_reduce(0, overlaps.argmax(1), number, 'amin')
        result.gt_inds = result.gt_inds.where(first == none, first)
        return result
