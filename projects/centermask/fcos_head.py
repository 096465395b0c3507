"""Box head of CenterMask (paper, section 2.1): FCOS with the arithmetic of both releases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor

from .boxes import check_nms, nms_of_image, scale_factors
from .losses import clamp_avg_factor


def _flatten(maps: Sequence[Tensor]) -> Tensor:
    """Join the maps (N, C, H, W) of all levels as (P, C), ordered by level, image, row and column."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in maps])


@MODELS.register_module()
class CenterMaskFCOSHead(FCOSHead):
    """FCOS head that trains and detects in one forward pass.

    It predicts distances to the sides of a box in pixels, as exponentials (paper recipe), or in strides of the level,
    rectified (star recipe), in training and in testing.

    Args:
        num_classes, in_channels, **kwargs: arguments of :class:`mmdet.models.FCOSHead`. ``norm_on_bbox`` chooses the
            star recipe's distances.
        sqrt_score: whether a detection's score is the square root of class score × centerness (star) or the product.
        legacy_boxes: whether a box ends inside its last pixel (paper recipe): boxes are clipped to
            [0, W − 1] × [0, H − 1] before NMS, and the smallest of several objects is found by (w + 1)(h + 1). Else
            boxes stay unclipped. The offset of NMS is ``test_cfg.nms.offset=1``.
        sync_avg_factor: whether losses are divided by counts averaged over the processes (star) or by each process's
            own, the class loss by positives + images (paper).

    Raises:
        ValueError: for another number of ``regress_ranges`` than of ``strides``, limits in ``test_cfg`` under 1, and
            a ``test_cfg.nms`` that MMCV can't run.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        sqrt_score: bool = True,
        legacy_boxes: bool = False,
        sync_avg_factor: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        if len(self.regress_ranges) != len(self.strides):
            raise ValueError(f'{len(self.strides)} strides need as many regress_ranges, not {self.regress_ranges}')
        test_cfg = self.test_cfg or {}
        for limit in ('nms_pre', 'max_per_img'):
            if test_cfg.get(limit, 1) < 1:
                raise ValueError(f'test_cfg.{limit} is a number from 1, not {test_cfg[limit]}')
        check_nms(test_cfg.get('nms'))
        self.sqrt_score = sqrt_score
        self.legacy_boxes = legacy_boxes
        self.sync_avg_factor = sync_avg_factor

    def forward_single(self, x: Tensor, scale: torch.nn.Module, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return class logits, distances (left, top, right, bottom) and centerness logits of one level."""
        cls_score, distances, cls_feat, box_feat = AnchorFreeHead.forward_single(self, x)
        centerness = self.conv_centerness(box_feat if self.centerness_on_reg else cls_feat)
        distances = scale(distances).float()
        return cls_score, distances.relu() if self.norm_on_bbox else distances.exp(), centerness

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox`` and ``loss_centerness``, scalars."""
        points = self.prior_generator.grid_priors(
            [level.shape[-2:] for level in cls_scores], dtype=torch.float32, device=cls_scores[0].device
        )
        level_labels, level_targets = self.get_targets(points, batch_gt_instances)
        labels, targets = torch.cat(level_labels), torch.cat(level_targets)  # (P,), (P, 4)
        logits, distances, centerness = _flatten(cls_scores), _flatten(bbox_preds), _flatten(centernesses).squeeze(1)

        positive = (labels < self.num_classes).nonzero().squeeze(1)
        targets, distances, centerness = targets[positive], distances[positive], centerness[positive]
        centerness_targets = self.centerness_target(targets)
        num_positive = centerness_targets.new_tensor(float(len(positive)))
        centerness_sum = centerness_targets.sum()
        if self.sync_avg_factor:
            num_positive, centerness_sum = reduce_mean(torch.stack([num_positive, centerness_sum]))
            class_avg_factor = clamp_avg_factor(num_positive)
        else:
            class_avg_factor = num_positive + len(batch_img_metas)

        losses = dict(loss_cls=self.loss_cls(logits, labels, avg_factor=class_avg_factor))
        if len(positive):
            losses['loss_bbox'] = self.loss_bbox(
                distances, targets, weight=centerness_targets, avg_factor=centerness_sum.clamp(min=1e-6)
            )
            losses['loss_centerness'] = self.loss_centerness(
                centerness, centerness_targets, avg_factor=clamp_avg_factor(num_positive)
            )
        else:  # zeros that still reach every parameter, as DDP expects
            losses['loss_bbox'] = distances.sum()
            losses['loss_centerness'] = centerness.sum()
        return losses

    def _get_targets_single(
        self, gt_instances: InstanceData, points: Tensor, regress_ranges: Tensor, num_points_per_lvl: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Return the targets of one image's locations: classes (P,) and distances in pixels (P, 4).

        A location near the centre of several objects of its level's size learns the smallest. Ranges of sizes include
        both ends.

        Args:
            gt_instances: G objects.
            points: locations of all levels, x and y in pixels, shape (P, 2).
            regress_ranges: least and greatest distance that each location learns, in pixels, shape (P, 2).
            num_points_per_lvl: locations of each level.
        """
        boxes, labels = gt_instances.bboxes, gt_instances.labels
        if not len(boxes):
            return labels.new_full((len(points),), self.num_classes), points.new_zeros((len(points), 4))
        strides = points.new_tensor(self.strides).repeat_interleave(torch.tensor(num_points_per_lvl).to(points.device))
        radius = strides[:, None] * (self.center_sample_radius if self.center_sampling else torch.inf)  # (P, 1)
        # One axis at a time, to save memory: a tensor (P, G) of 20 000 locations and 1000 objects takes 80 MB.
        near_center = torch.ones(len(points), len(boxes), dtype=torch.bool, device=points.device)
        max_distance = points.new_zeros(len(points), len(boxes))
        for axis in (0, 1):
            location, start, end = points[:, axis, None], boxes[:, axis], boxes[:, axis + 2]  # (P, 1), (G,), (G,)
            center = (start + end) / 2
            near_center &= location > torch.maximum(center - radius, start)
            near_center &= location < torch.minimum(center + radius, end)
            max_distance = torch.maximum(max_distance, torch.maximum(location - start, end - location))
        in_range = (max_distance >= regress_ranges[:, :1]) & (max_distance <= regress_ranges[:, 1:])
        sizes = boxes[:, 2:] - boxes[:, :2] + int(self.legacy_boxes)
        areas = (sizes[:, 0] * sizes[:, 1]).expand(len(points), -1)
        smallest, chosen = areas.where(near_center & in_range, areas.new_tensor(torch.inf)).min(1)
        target_labels = labels[chosen].where(smallest.isfinite(), labels.new_tensor(self.num_classes))
        return target_labels, torch.cat([points - boxes[chosen, :2], boxes[chosen, 2:] - points], dim=1)

    @torch.no_grad()
    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor],
        batch_img_metas: list[dict],
        cfg: dict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Return the detections of each image by descending score: ``bboxes`` (N, 4), ``scores`` and ``labels`` (N,).

        Args:
            cls_scores, bbox_preds, score_factors: result of :meth:`forward`, a list of levels each.
            batch_img_metas: ``img_shape`` and, to rescale, as :func:`scale_factors` takes it.
            cfg: replaces ``test_cfg``; ``max_per_img`` may be None for no limit here.
            rescale: whether to return boxes in pixels of the original image.
            with_nms: unused; ``nms=None`` in ``cfg`` keeps all boxes.
        """
        cfg = cfg or self.test_cfg
        sizes = torch.tensor([meta['img_shape'][:2] for meta in batch_img_metas], device=cls_scores[0].device)
        candidates = self.candidates(cls_scores, bbox_preds, score_factors, sizes, cfg)
        return [
            self._select(boxes, scores, labels, meta, cfg, rescale)
            for boxes, scores, labels, meta in zip(*candidates, batch_img_metas, strict=True)
        ]

    def candidates(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        score_factors: Sequence[Tensor],
        image_sizes: Tensor,
        cfg: dict | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input of NMS: boxes (N, K, 4) in pixels, scores (N, K) and labels (N, K).

        They are the best ``nms_pre`` pairs of location and class of each level by class score × centerness, among those
        whose class score exceeds ``score_thr``. No shape depends on the data, so the host needn't wait and an exporter
        can trace it. Where fewer pairs exceed the threshold, the rest has a score of 0. Ties at the last of the best
        are cut, where both releases keep all.

        Args:
            cls_scores, bbox_preds, score_factors: result of :meth:`forward`, a list of levels each.
            image_sizes: height and width of each image without its padding, in pixels, shape (N, 2). Boxes are clipped
                to it if ``legacy_boxes``.
            cfg: ``score_thr`` and ``nms_pre``, replaces ``test_cfg``.
        """
        cfg = cfg or self.test_cfg
        levels = [
            self._candidates_of_level(*maps, cfg)
            for maps in zip(cls_scores, bbox_preds, score_factors, self.strides, strict=True)
        ]
        points, distances, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        boxes = torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=2)
        if self.legacy_boxes:
            boxes = torch.minimum(boxes.clamp(min=0), image_sizes.flip(1).repeat(1, 2)[:, None] - 1.0)
        return boxes, scores.sqrt() if self.sqrt_score else scores, labels

    def _candidates_of_level(
        self, cls_score: Tensor, distances: Tensor, centerness: Tensor, stride: int, cfg: dict
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return points (N, K, 2), distances in pixels (N, K, 4), class × centerness (N, K) and labels (N, K)."""
        classes, width = cls_score.shape[1], cls_score.shape[3]
        class_scores = F.threshold(cls_score.float().sigmoid(), cfg['score_thr'], 0)
        scores = (class_scores * centerness.float().sigmoid()).permute(0, 2, 3, 1).flatten(1)  # (N, H · W · classes)
        # A size is a tensor in torch.jit.trace (MMDetection's get_flops.py) and a symbol in torch.export.
        smaller = min if torch.jit.is_tracing() else torch.sym_min
        scores, indices = scores.topk(smaller(cfg['nms_pre'], scores.shape[1]), dim=1)
        labels, locations = indices % classes, indices // classes
        points = (torch.stack([locations % width, locations // width], dim=2) + 0.5) * stride
        distances = distances.permute(0, 2, 3, 1).flatten(1, 2).gather(1, locations[..., None].expand(-1, -1, 4))
        return points, distances.float() * (stride if self.norm_on_bbox else 1), scores, labels

    def _select(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, meta: dict, cfg: dict, rescale: bool
    ) -> InstanceData:
        """Return one image's detections: NMS of its candidates, then the best ``max_per_img``."""
        valid = (scores > 0).nonzero().squeeze(1)
        boxes, scores, labels = boxes[valid], scores[valid], labels[valid]
        kept, scores = nms_of_image(boxes, scores, labels, self.num_classes, cfg['nms'])
        kept, scores = kept[: cfg['max_per_img']], scores[: cfg['max_per_img']]
        boxes, labels = boxes[kept], labels[kept]
        if rescale:
            boxes = boxes / scale_factors(boxes, meta)
        return InstanceData(bboxes=boxes, scores=scores, labels=labels)
