"""The mask scoring head (paper, Table 1; Mask Scoring R-CNN): how well does a predicted mask cover its object?"""

from __future__ import annotations

import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads import MaskIoUHead
from mmdet.registry import MODELS
from torch import Tensor

from .arguments import flags, given, initialisation, one_of, typed, whole_numbers
from .mask_targets import Polygons, area_ratio_of_first_polygon, area_ratio_of_polygons, mask_iou_targets
from .normalizers import weight_among_processes


@MODELS.register_module()
class MaskScoringHead(MaskIoUHead):
    """Predicts the IoU of each mask with its object, one output a class.

    Args:
        num_classes: classes of objects.
        legacy_background: whether output 0 stands for the background, so that class c reads output c + 1
            (the paper recipe's released layout).
        area_ratio: how the part of an object inside its RoI is measured in training:
            ``'all_polygons'`` (second release, default) or ``'first_polygon'`` (first release).
        **kwargs: as :class:`mmdet.models.MaskIoUHead` takes them.

    Raises:
        ValueError: for an argument of none of these values.
    """

    def __init__(
        self, num_classes: int = 80, legacy_background: bool = False, area_ratio: str = 'all_polygons', **kwargs
    ) -> None:
        name = type(self).__name__
        one_of(name, 'area_ratio', area_ratio, ('all_polygons', 'first_polygon'))
        flags(name, dict(legacy_background=legacy_background))
        sizes = ('roi_feat_size', 'in_channels', 'conv_out_channels', 'fc_out_channels')
        whole_numbers(name, dict(num_classes=num_classes, **given(kwargs, *sizes)))
        whole_numbers(name, given(kwargs, 'num_convs', 'num_fcs'), 0)
        typed(name, given(kwargs, 'loss_iou'))
        initialisation(name, kwargs.get('init_cfg'))
        super().__init__(num_classes=num_classes + int(legacy_background), **kwargs)
        self.first_class = int(legacy_background)
        self.roi_feat_size = kwargs.get('roi_feat_size', 14)
        self.area_ratio = area_ratio

    def forward(self, mask_feat: Tensor, mask_preds: Tensor, labels: Tensor) -> Tensor:
        """Return the IoU predicted for each RoI's mask, shape (R,).

        Args:
            mask_feat: RoI features, shape (R, C, 14, 14).
            mask_preds: mask logits of the RoIs' classes, shape (R, 28, 28).
            labels: the classes, shape (R,).
        """
        inputs = mask_feat, self.max_pool(mask_preds.sigmoid()[:, None])
        if mask_feat.is_contiguous(memory_format=torch.channels_last):  # which one channel wouldn't leave as it is
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

    def area_ratios(self, objects: list[Polygons], rois: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the part of each RoI's object that lies inside it, shape (R,); RoIs (R, 4) of one image."""
        if self.area_ratio == 'all_polygons':
            area_ratios = [area_ratio_of_polygons(polygons, roi) for polygons, roi in zip(objects, rois, strict=True)]
        else:
            area_ratios = [
                area_ratio_of_first_polygon(polygons, roi, image_size)
                for polygons, roi in zip(objects, rois, strict=True)
            ]
        return np.array(area_ratios, np.float64)

    def loss(
        self,
        mask_ious: Tensor,
        mask_logits: Tensor,
        mask_targets: Tensor,
        area_ratios: np.ndarray,
        sync_avg_factor: bool,
    ) -> Tensor:
        """Return the scoring loss, a scalar: over RoIs with an IoU above 0.

        Args:
            mask_ious: IoU predicted for each RoI's own class, shape (R,).
            mask_logits: its mask, shape (R, 28, 28).
            mask_targets: masks of 0 and 1, shape (R, 28, 28).
            area_ratios: what :meth:`area_ratios` returns for the same RoIs.
            sync_avg_factor: whether the number of RoIs is averaged over the processes.
        """
        predicted = (mask_logits.detach() > 0).cpu().numpy()
        targets = mask_ious.new_tensor(mask_iou_targets(predicted, mask_targets.cpu().numpy(), area_ratios))
        learned = (targets > 0).nonzero().squeeze(1)
        weight = weight_among_processes(len(learned), mask_ious) if sync_avg_factor else 1
        if not len(learned):
            return mask_ious.sum() * 0
        return self.loss_iou(mask_ious[learned], targets[learned]) * weight
