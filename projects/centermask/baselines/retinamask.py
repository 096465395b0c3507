"""RetinaMask (compared in Table 5): RetinaNet's box head in place of FCOS's, and its self-adjusting smooth L1 loss."""

from __future__ import annotations

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .levels import join_levels

MIN_BETA = 0.001


@MODELS.register_module()
class RetinaMaskBoxHead(RetinaHead):
    """RetinaNet's head as the ``bbox_head`` of a :class:`CenterMask`.

    Unlike in MMDetection, ``loss_bbox`` gets the positive anchors of all levels at once, for the statistics of
    :class:`SelfAdjustingSmoothL1Loss`. Each process divides by its own counts, as in the paper recipe: the class loss
    by positive anchors + images, the box loss by the coordinates of the positive anchors.

    Args:
        train_cfg: the detector's. Its ``anchors`` holds RetinaNet's ``assigner``, ``allowed_border`` and
            ``pos_weight``; the ``assigner`` beside it is the RoI head's.
        **kwargs: other arguments of :class:`mmdet.models.RetinaHead`. ``loss_bbox`` takes predictions, targets and
            ``avg_factor``.
    """

    def __init__(self, train_cfg: dict | None = None, **kwargs) -> None:
        super().__init__(train_cfg=train_cfg and train_cfg['anchors'], **kwargs)

    def forward_single(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return class logits and box deltas of one level's anchors, in single precision like the anchors."""
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
        # Lists of levels, (N, anchors of the level, ...), to (N · all anchors, ...).
        labels, weights, deltas = (torch.cat(levels, 1).flatten(0, 1) for levels in targets[:3])
        logits = join_levels(cls_scores, self.cls_out_channels).flatten(0, 1)
        predicted = join_levels(bbox_preds, 4).flatten(0, 1)
        positive = (labels < self.num_classes).nonzero().squeeze(1)
        loss_cls = self.loss_cls(logits, labels, weights, avg_factor=len(positive) + len(batch_img_metas))
        loss_bbox = self.loss_bbox(predicted[positive], deltas[positive], avg_factor=max(4 * len(positive), 1))
        return dict(loss_cls=loss_cls, loss_bbox=loss_bbox)


@MODELS.register_module()
class SelfAdjustingSmoothL1Loss(nn.Module):
    """Smooth L1 whose β follows the errors d of training: 0.5 d² / β where d < β, else d − 0.5 β.

    For each coordinate of a box, β is the running mean of d minus its running variance, clamped to [0.001, ``beta``].
    Each process has its own statistics. They are updated in training before the loss is computed, and saved with the
    model. Their initial values give plain smooth L1 with ``beta``.

    Args:
        beta: upper bound of β.
        momentum: weight of the running statistics when a batch with at least two boxes is added.
        loss_weight: factor of the loss.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, beta: float = 0.11, momentum: float = 0.9, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.beta = beta
        self.momentum = momentum
        self.loss_weight = loss_weight
        self.register_buffer('running_mean', torch.full((4,), beta))
        self.register_buffer('running_var', torch.zeros(4))

    def forward(self, pred: Tensor, target: Tensor, avg_factor: float) -> Tensor:
        """Return the loss, a scalar: the sum over boxes and coordinates divided by ``avg_factor``.

        Args:
            pred, target: encoded boxes of all positives of a batch, shape (N, 4).
            avg_factor: a number above 0.
        """
        error = (pred - target).abs()
        if self.training and len(error) > 1:  # one box has no variance
            with torch.no_grad():
                self.running_mean.lerp_(error.mean(0), 1 - self.momentum)
                self.running_var.lerp_(error.var(0), 1 - self.momentum)
        beta = (self.running_mean - self.running_var).clamp(MIN_BETA, self.beta)
        loss = torch.where(error < beta, 0.5 * error.square() / beta, error - 0.5 * beta)
        return self.loss_weight * loss.sum() / avg_factor
