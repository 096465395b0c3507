"""The box head of RetinaMask (compared in Table 5): RetinaNet's, in the place of FCOS's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor


def _flatten(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Join maps (N, anchors · channels, H, W) of all levels as (N · all anchors of all levels, channels)."""
    images = len(maps[0])
    return torch.cat([level.permute(0, 2, 3, 1).reshape(images, -1, channels) for level in maps], 1).flatten(0, 1)


@MODELS.register_module()
class RetinaMaskBoxHead(RetinaHead):
    """MMDetection's RetinaNet head as a part of :class:`CenterMask`.

    Other than there, ``loss_bbox`` sees the positive anchors of all levels at once, as the statistics of
    :class:`SelfAdjustingSmoothL1Loss` want it, and each process divides by its own counts, as in the paper recipe: the
    class loss by positive anchors + images, the box loss by the coordinates of the positive anchors.

    Args:
        train_cfg: the detector's; ``anchors`` in it is what the head takes in MMDetection (``assigner``,
            ``allowed_border``, ``pos_weight``), since ``assigner`` next to it is the RoIs'.
        **kwargs: as :class:`mmdet.models.RetinaHead` takes them. ``loss_bbox`` takes predictions, targets and
            ``avg_factor``.
    """

    def __init__(self, train_cfg: dict | None = None, **kwargs) -> None:
        super().__init__(train_cfg=train_cfg and train_cfg['anchors'], **kwargs)

    def forward_single(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return class logits and box deltas of one level's anchors, in single precision as the anchors need it."""
        return tuple(maps.float() for maps in super().forward_single(x))

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``, scalars."""
        anchors, valid = self.get_anchors(
            [level.shape[-2:] for level in cls_scores], batch_img_metas, device=cls_scores[0].device
        )
        targets = self.get_targets(
            anchors, valid, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore=batch_gt_instances_ignore
        )
        # Each a list of levels, (N, anchors of the level, ...).
        labels, weights, deltas = (torch.cat(levels, 1).flatten(0, 1) for levels in targets[:3])
        logits, predicted = _flatten(cls_scores, self.cls_out_channels), _flatten(bbox_preds, 4)
        positive = (labels < self.num_classes).nonzero().squeeze(1)
        loss_cls = self.loss_cls(logits, labels, weights, avg_factor=len(positive) + len(batch_img_metas))
        loss_bbox = self.loss_bbox(predicted[positive], deltas[positive], avg_factor=max(4 * len(positive), 1))
        return dict(loss_cls=loss_cls, loss_bbox=loss_bbox)
