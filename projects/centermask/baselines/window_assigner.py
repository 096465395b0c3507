"""Which windows of TensorMask learn an object (TensorMask, section 4.4), by boxes as its release has it."""

from __future__ import annotations

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor


@TASK_UTILS.register_module()
class WindowAssigner(BaseAssigner):
    """Assign an object to the windows that contain it, suit its size, have its centre, and no other object claims."""

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
    ) -> AssignResult:
        """Return ``gt_inds`` (M,): the object's number from 1, or 0 for background. No window is ignored.

        Args:
            pred_instances: M windows: ``priors`` (M, 4) in pixels, and ``strides`` (M,) of their levels.
            gt_instances: G objects: ``bboxes`` (G, 4) in pixels, and ``labels`` (G,).
            gt_instances_ignore: unused.
        """
        windows, objects = self.claims(pred_instances.priors, pred_instances.strides, gt_instances.bboxes)
        claimed = torch.bincount(windows, minlength=len(pred_instances.priors))  # (M,)
        alone = claimed[windows] == 1
        gt_inds = torch.zeros_like(claimed)
        gt_inds[windows[alone]] = objects[alone] + 1
        labels = torch.full_like(claimed, -1)
        labels[windows[alone]] = gt_instances.labels[objects[alone]]
        return AssignResult(len(gt_instances), gt_inds, None, labels)

    def claims(self, windows: Tensor, strides: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pairs of a window and an object that claims it, (Q,) indices each, by rising window.

        A box without area, whose deltas would be infinite, claims none.

        Args:
            windows: shape (M, 4).
            strides: of their levels, in pixels, shape (M,).
            boxes: of the objects, shape (G, 4).
        """
        longest = (windows[:, 2:] - windows[:, :2]).amax(1) - strides  # (M,)
        limit = 2 * (boxes[:, 2:] - boxes[:, :2]).amax(1)
        limit = limit.clamp(min=longest.min())  # (G,); the smallest windows take whatever is smaller
        # One comparison at a time, in bools (M, G): floats of 180 000 windows and 100 objects take 72 MB.
        claim = (longest[:, None] <= limit) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        for axis in (0, 1):
            claim &= windows[:, axis, None] <= boxes[:, axis]
            claim &= windows[:, axis + 2, None] >= boxes[:, axis + 2]
        chosen, objects = claim.nonzero().unbind(1)
        shift = (windows[chosen, :2] + windows[chosen, 2:] - boxes[objects, :2] - boxes[objects, 2:]) / 2
        central = shift.square().sum(1).sqrt() <= strides[chosen]
        return chosen[central], objects[central]
