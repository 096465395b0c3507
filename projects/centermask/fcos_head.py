"""The box head of CenterMask: FCOS (paper, section 2.1) with the arithmetic of both releases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.task_modules import MlvlPointGenerator
from mmdet.registry import MODELS
from mmdet.structures.bbox import scale_boxes
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor

from .arguments import dicts, flags, given, initialisation, is_whole, one_of, refuse, shares, typed, whole_numbers
from .normalizers import clamp_avg_factor


def _flatten(maps: Sequence[Tensor]) -> Tensor:
    """Join maps (N, C, H, W) of all levels as (locations, C): level by level, in it image by image, row by row."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in maps])


class _PointGenerator(MlvlPointGenerator):
    """MMDetection's, which leaves ``indexing`` out so that torch warns in every run."""

    def _meshgrid(self, x: Tensor, y: Tensor, row_major: bool = True) -> tuple[Tensor, Tensor]:
        yy, xx = torch.meshgrid(y, x, indexing='ij')
        return (xx.flatten(), yy.flatten()) if row_major else (yy.flatten(), xx.flatten())


def _check_arguments(name: str, arguments: dict) -> None:
    """Check what the base class takes as it comes."""
    switches = ('center_sampling', 'norm_on_bbox', 'centerness_on_reg', 'dcn_on_last_conv')
    flags(name, given(arguments, *switches))
    one_of(name, 'conv_bias', arguments.get('conv_bias', 'auto'), (True, False, 'auto'))
    whole_numbers(name, given(arguments, 'feat_channels'))
    whole_numbers(name, given(arguments, 'stacked_convs'), 0)
    strides = arguments.get('strides', (4, 8))
    if not isinstance(strides, Sequence) or not strides or not all(is_whole(s) and s > 0 for s in strides):
        refuse(name, 'strides', 'are whole numbers above 0', strides)
    ranges = arguments.get('regress_ranges', ((-1, 64),))
    if not isinstance(ranges, Sequence) or not all(map(_is_range, ranges)):
        refuse(name, 'regress_ranges', 'are pairs of a lesser and a greater length', ranges)
    radius = arguments.get('center_sample_radius', 1.5)
    if not _is_length(radius) or not 0 < radius < math.inf:
        refuse(name, 'center_sample_radius', 'is a number above 0', radius)
    configs = ('loss_cls', 'loss_bbox', 'loss_centerness', 'bbox_coder', 'conv_cfg', 'norm_cfg', 'cls_predictor_cfg')
    typed(name, given(arguments, *configs))
    initialisation(name, arguments.get('init_cfg'))
    dicts(name, given(arguments, 'train_cfg', 'test_cfg'))
    test_cfg = arguments.get('test_cfg') or {}
    typed(name, given(test_cfg, 'nms', within='test_cfg'))
    if 'nms' in test_cfg:  # MMCV evaluates the name as a program
        one_of(name, 'test_cfg.nms.type', test_cfg['nms']['type'], ('nms', 'soft_nms'))
    shares(name, given(test_cfg, 'score_thr', within='test_cfg'))
    shares(name, given(test_cfg.get('nms'), 'iou_threshold', within='test_cfg.nms'))
    whole_numbers(name, given(test_cfg, 'nms_pre', 'max_per_img', within='test_cfg'))


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_range(pair: Any) -> bool:
    return isinstance(pair, Sequence) and len(pair) == 2 and all(map(_is_length, pair)) and pair[0] < pair[1]


@MODELS.register_module()
class CenterMaskFCOSHead(FCOSHead):
    """FCOS head that trains and detects in one forward pass.

    It gives distances to the sides of a box in pixels where they are exponentials (paper recipe) and in strides of the
    level where they are rectified (star recipe), in training as in testing.

    Args:
        num_classes, in_channels, **kwargs: as :class:`mmdet.models.FCOSHead` takes them. ``norm_on_bbox`` tells which
            of the two the distances are.
        sqrt_score: whether a detection's score is the square root of class score × centerness (star) or their product.
        legacy_boxes: the paper recipe's convention that a box ends inside its last pixel: boxes are clipped to
            [0, W − 1] × [0, H − 1] before NMS, and the smallest of several objects is found by (w + 1)(h + 1). Without
            it boxes stay unclipped. (NMS has it by ``test_cfg.nms.offset=1``.)
        sync_avg_factor: whether losses are divided by counts averaged over the processes (star), or each process's
            own, the class loss by positives + images (paper).

    Raises:
        ValueError: for an argument of none of these values.
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
        name = type(self).__name__
        _check_arguments(name, kwargs)
        flags(name, dict(sqrt_score=sqrt_score, legacy_boxes=legacy_boxes, sync_avg_factor=sync_avg_factor))
        whole_numbers(name, dict(num_classes=num_classes, in_channels=in_channels))
        super().__init__(num_classes, in_channels, **kwargs)
        if len(self.regress_ranges) != len(self.strides):
            refuse(name, 'regress_ranges', f'are one for each of the {len(self.strides)} strides', self.regress_ranges)
        self.prior_generator = _PointGenerator(self.strides)
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
            class_normalizer = clamp_avg_factor(num_positive)
        else:
            class_normalizer = num_positive + len(batch_img_metas)

        losses = dict(loss_cls=self.loss_cls(logits, labels, avg_factor=class_normalizer))
        if len(positive):
            losses['loss_bbox'] = self.loss_bbox(
                distances, targets, weight=centerness_targets, avg_factor=centerness_sum.clamp(min=1e-6)
            )
            losses['loss_centerness'] = self.loss_centerness(
                centerness, centerness_targets, avg_factor=clamp_avg_factor(num_positive)
            )
        else:  # nothing to learn, yet every parameter gets its gradient of 0
            losses['loss_bbox'] = distances.sum()
            losses['loss_centerness'] = centerness.sum()
        return losses

    def _get_targets_single(
        self, gt_instances: InstanceData, points: Tensor, regress_ranges: Tensor, num_points_per_lvl: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Return the class (P,) and the distances in pixels (P, 4) that each of one image's locations (P, 2) learns.

        A location near the centre of several objects of its level's size learns the smallest. Ranges of sizes include
        both ends.
        """
        boxes, labels = gt_instances.bboxes, gt_instances.labels
        if not len(boxes):
            return labels.new_full((len(points),), self.num_classes), points.new_zeros((len(points), 4))
        strides = points.new_tensor(self.strides).repeat_interleave(torch.tensor(num_points_per_lvl).to(points.device))
        reach = self.center_sample_radius * strides[:, None]  # (P, 1)
        low, high = regress_ranges.split(1, dim=1)
        # One axis at a time: a thousand objects of 20 000 locations fill 80 MB for each number a pair of them has.
        near_center, size = points.new_ones((), dtype=torch.bool), points.new_zeros(())
        for place, start, end in zip(points.split(1, dim=1), boxes[:, :2].t(), boxes[:, 2:].t(), strict=True):
            center = (start + end) / 2
            near_center = near_center & (place > torch.maximum(center - reach, start))
            near_center &= place < torch.minimum(center + reach, end)
            size = torch.maximum(size, torch.maximum(place - start, end - place))  # (P, G)
        sides = boxes[:, 2:] - boxes[:, :2] + int(self.legacy_boxes)
        areas = (sides[:, 0] * sides[:, 1]).expand(len(points), -1)
        learns = near_center & (size >= low) & (size <= high)
        smallest, chosen = areas.where(learns, areas.new_tensor(torch.inf)).min(1)
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
        """Return the detections of each image by falling score: ``bboxes`` (N, 4), ``scores`` (N,), ``labels`` (N,).

        Args:
            cls_scores, bbox_preds, score_factors: what :meth:`forward` returns, a list of levels each.
            batch_img_metas: ``img_shape`` and, to rescale, ``scale_factor``.
            cfg: instead of ``test_cfg``.
            rescale: whether boxes are in pixels of the original image.
        """
        cfg = cfg or self.test_cfg
        sizes = torch.tensor([meta['img_shape'][:2] for meta in batch_img_metas], device=cls_scores[0].device)
        found = self.candidates(cls_scores, bbox_preds, score_factors, sizes, cfg)
        return [
            self._select(boxes, scores, labels, meta, cfg, rescale)
            for boxes, scores, labels, meta in zip(*found, batch_img_metas, strict=True)
        ]

    def candidates(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        score_factors: Sequence[Tensor],
        image_sizes: Tensor,
        cfg: dict | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what goes into NMS: boxes (N, K, 4) in pixels, scores (N, K) and labels (N, K).

        Of each level's pairs of location and class whose class score passes the threshold, the best ``nms_pre`` by
        class × centerness. No shape depends on the data, so the host needn't wait and an exporter can trace it: where
        fewer pass, the rest have a score of 0 and are nobody's detections. Of several that equal the last of the best,
        some are left out, where both releases keep all.

        Args:
            cls_scores, bbox_preds, score_factors: what :meth:`forward` returns, a list of levels each.
            image_sizes: height and width of each image without its padding, in pixels, shape (N, 2); boxes are clipped
                to it if ``legacy_boxes``.
            cfg: ``score_thr`` and ``nms_pre``, instead of ``test_cfg``.
        """
        cfg = cfg or self.test_cfg
        levels = [
            self._candidates_of_level(cls, box, centerness, stride, cfg)
            for cls, box, centerness, stride in zip(cls_scores, bbox_preds, score_factors, self.strides, strict=True)
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
        # A size is a tensor to torch.jit.trace (MMDetection's get_flops.py) and a symbol to torch.export.
        smaller = min if torch.jit.is_tracing() else torch.sym_min
        scores, places = scores.topk(smaller(cfg['nms_pre'], scores.shape[1]), dim=1)
        labels, locations = places % classes, places // classes
        points = (torch.stack([locations % width, locations // width], dim=2) + 0.5) * stride
        distances = distances.permute(0, 2, 3, 1).flatten(1, 2).gather(1, locations[..., None].expand(-1, -1, 4))
        return points, distances.float() * (stride if self.norm_on_bbox else 1), scores, labels

    def _select(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, meta: dict, cfg: dict, rescale: bool
    ) -> InstanceData:
        """Return one image's detections: class-wise NMS of its candidates, then the best ``max_per_img``."""
        passed = (scores > 0).nonzero().squeeze(1)
        boxes, scores, labels = boxes[passed], scores[passed], labels[passed]
        kept = nms_by_class(boxes, scores, labels, self.num_classes, cfg['nms'])[: cfg['max_per_img']]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if rescale:
            boxes = scale_boxes(boxes, [1 / factor for factor in meta['scale_factor']])
        return InstanceData(bboxes=boxes, scores=scores, labels=labels)


def apart_by_class(boxes: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Move boxes apart by their class, so that one NMS does what one for each class would.

    Each class has a cell of its own in a square of cells: in a row of 80, let alone of 1200, coordinates would grow so
    large that float32 rounds small boxes.

    Args:
        boxes: at least one in each image, shape (K, 4) or (N, K, 4).
        labels: of these, shape (K,) or (N, K).
        num_classes: labels are less than this.
    """
    boxes = boxes - boxes.amin((-2, -1), keepdim=True)
    cells = math.isqrt(num_classes - 1) + 1
    shift = torch.stack([labels % cells, labels // cells], dim=-1) * (boxes.amax((-2, -1), keepdim=True) + 1)
    return boxes + torch.cat([shift, shift], dim=-1)


def nms_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, cfg: dict) -> Tensor:
    """Return which of the boxes (K, 4) of one image NMS keeps, by falling score.

    Args:
        boxes, scores, labels: of the candidates, any number of them.
        num_classes: labels are less than this.
        cfg: MMCV's config of the NMS.
    """
    if not len(boxes):
        return labels
    # MMCV would go through the classes one by one where there are many boxes.
    cfg = {**cfg, 'class_agnostic': True, 'split_thr': len(boxes) + 1}
    return batched_nms(apart_by_class(boxes, labels, num_classes), scores, labels, cfg)[1]
