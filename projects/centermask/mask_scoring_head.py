"""Mask scoring head (paper, Table 1; Mask Scoring R-CNN): the IoU of a predicted mask with its object."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads import MaskIoUHead
from mmdet.registry import MODELS
from torch import Tensor

from .losses import weight_of_local_mean
from .mask_targets import Mask, area_ratio_of_first_polygon, area_ratio_of_polygons, mask_iou_targets


@MODELS.register_module()
class MaskScoringHead(MaskIoUHead):
    """Mask R-CNN's mask IoU head, one output a class.

    Args:
        num_classes: number of classes.
        legacy_background: whether output 0 is the background, so that class c reads output c + 1 (released weights of
            the paper recipe).
        area_ratio: how training measures the part of an object that lies inside its RoI: over ``'all_polygons'``
            (second release) or over the ``'first_polygon'`` (first release).
        **kwargs: other arguments of :class:`mmdet.models.MaskIoUHead`.
    """

    def __init__(
        self,
        num_classes: int = 80,
        legacy_background: bool = False,
        area_ratio: Literal['all_polygons', 'first_polygon'] = 'all_polygons',
        **kwargs,
    ) -> None:
        super().__init__(num_classes=num_classes + int(legacy_background), **kwargs)
        self.first_class = int(legacy_background)
        self.area_ratio = area_ratio

    def forward(self, mask_feat: Tensor, mask_preds: Tensor, labels: Tensor) -> Tensor:
        """Return the IoU predicted for each RoI's mask, shape (R,).

        Args:
            mask_feat: RoI features, shape (R, C, 14, 14).
            mask_preds: mask logits of the RoIs' classes, shape (R, 28, 28).
            labels: the classes, shape (R,).
        """
        inputs = mask_feat, self.max_pool(mask_preds.sigmoid()[:, None])
        if mask_feat.is_contiguous(memory_format=torch.channels_last):  # a plain cat returns contiguous memory
            x = torch.cat([part.permute(0, 2, 3, 1) for part in inputs], dim=3).permute(0, 3, 1, 2)
        else:
            x = torch.cat(inputs, dim=1)  # (R, C + 1, 14, 14)
        for conv in self.convs:
            x = self.relu(conv(x))
        x = x.flatten(1)
        for fc in self.fcs:
            x = self.relu(fc(x))
        outputs = labels + self.first_class
        return (x * self.fc_mask_iou.weight[outputs]).sum(1) + self.fc_mask_iou.bias[outputs]

    def area_ratios(self, objects: list[Mask], rois: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the part of each RoI's object that lies inside the RoI, shape (R,).

        Args:
            objects: polygons or bitmap of each RoI's object.
            rois: x1, y1, x2, y2 in pixels of the resized image, shape (R, 4).
            image_size: height and width of the resized image.
        """
        pairs = zip(objects, rois, strict=True)
        if self.area_ratio == 'all_polygons':
            ratios = [area_ratio_of_polygons(mask, roi) for mask, roi in pairs]
        else:
            ratios = [area_ratio_of_first_polygon(mask, roi, image_size) for mask, roi in pairs]
        return np.array(ratios, np.float64)

    def loss(
        self,
        mask_ious: Tensor,
        mask_logits: Tensor,
        mask_targets: Tensor,
        area_ratios: Tensor,
        sync_avg_factor: bool,
    ) -> Tensor:
        """Return the loss, a scalar: the mean over RoIs whose mask has an IoU above 0. The host waits for nothing.

        Args:
            mask_ious: predicted IoU, shape (R,).
            mask_logits: predicted masks, shape (R, 28, 28).
            mask_targets: masks of 0 and 1, shape (R, 28, 28).
            area_ratios: result of :meth:`area_ratios` for the same RoIs.
            sync_avg_factor: whether the number of RoIs is averaged over the processes.
        """
        targets = mask_iou_targets(mask_logits.detach() > 0, mask_targets, area_ratios).to(mask_ious.dtype)
        learned = (targets > 0).float()
        count = learned.sum()
        weight = weight_of_local_mean(count, mask_ious) if sync_avg_factor else 1
        return self.loss_iou(mask_ious, targets, weight=learned, avg_factor=count.clamp(min=1)) * weight
