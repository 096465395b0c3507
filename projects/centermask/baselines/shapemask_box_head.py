"""ShapeMask's box head: RetinaNet with BN of its own for each level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from centermask.boxes import check_nms, clip_boxes, nms_of_image, scale_factors

from .levels import join_levels


def _tower(x: Tensor, convs: Any, norms: Any) -> Tensor:
    """Return features (N, C, H, W) of one level after convs of all levels, each with the level's norm and ReLU."""
    for conv, norm in zip(convs, norms, strict=True):
        x = norm(conv.conv(x)).relu()
    return x


@MODELS.register_module()
class ShapeMaskBoxHead(RetinaHead):
    """RetinaNet's head with convs that all levels share and BN that each level has for itself.

    Channel 0 of an anchor's classes is the background, which nothing learns and nothing reads; class c is channel
    c + 1. The convs before BN have biases, which those of :class:`mmdet.models.RetinaSepBNHead` lack. Boxes of objects
    and of detections are clipped to [0, width − 1] × [0, height − 1] of the network's input, with its padding.

    Args:
        num_classes: number of classes without the background.
        norm_cfg: config of the BN.
        **kwargs: other arguments of :class:`mmdet.models.RetinaHead`. ``test_cfg.nms_pre`` limits the candidates of
            each class. ``loss_bbox`` takes predictions, targets, ``weight`` and ``avg_factor``.
    """

    def __init__(self, num_classes: int, norm_cfg: dict, **kwargs) -> None:
        last = [
            dict(type='Normal', name='retina_cls', std=1e-5, bias_prob=0.01),
            dict(type='Normal', name='retina_reg', std=1e-5),
        ]
        init_cfg = dict(type='Normal', layer='Conv2d', std=0.01, override=last)
        super().__init__(num_classes, init_cfg=init_cfg, **kwargs)
        check_nms((self.test_cfg or {}).get('nms'))

        def norms() -> nn.ModuleList:
            return nn.ModuleList(build_norm_layer(norm_cfg, self.feat_channels)[1] for _ in range(self.stacked_convs))

        self.cls_norms = nn.ModuleList(norms() for _ in self.prior_generator.strides)
        self.reg_norms = nn.ModuleList(norms() for _ in self.prior_generator.strides)

    def _init_layers(self) -> None:
        self.cls_out_channels += 1  # the background
        super()._init_layers()

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return class logits (N, anchors · (1 + classes), H, W) and deltas (N, anchors · 4, H, W) of each level."""
        cls_scores, bbox_preds = [], []
        for level, cls_norms, reg_norms in zip(x, self.cls_norms, self.reg_norms, strict=True):
            cls_scores.append(self.retina_cls(_tower(level, self.cls_convs, cls_norms)).float())
            bbox_preds.append(self.retina_reg(_tower(level, self.reg_convs, reg_norms)).float())
        return cls_scores, bbox_preds

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``, scalars.

        They are divided by the positive anchors of this process's batch + 1, the box loss by four times as many.
        """
        sizes = [level.shape[-2:] for level in cls_scores]
        anchors = torch.cat(self.prior_generator.grid_priors(sizes, device=cls_scores[0].device))
        targets = []
        for objects, meta in zip(batch_gt_instances, batch_img_metas, strict=True):
            height, width = meta['batch_input_shape']
            boxes = clip_boxes(objects.bboxes, (height - 1, width - 1))
            targets.append(self.targets_of_image(anchors, boxes, objects.labels))
        labels, deltas = (torch.cat(parts) for parts in zip(*targets, strict=True))
        logits = join_levels(cls_scores, self.cls_out_channels).flatten(0, 1)
        predicted = join_levels(bbox_preds, 4).flatten(0, 1)
        divisor = (labels < self.num_classes).sum() + 1.0
        # A target of exactly 0 doesn't count: so the release tells positive anchors from others.
        return dict(
            loss_cls=self.loss_cls(logits, labels + 1, avg_factor=divisor),
            loss_bbox=self.loss_bbox(predicted, deltas, weight=(deltas != 0).float(), avg_factor=4 * divisor),
        )

    def targets_of_image(self, anchors: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each anchor's class (A,), or ``num_classes`` for none, and deltas (A, 4), or zeros.

        Args:
            anchors: of all levels, shape (A, 4).
            boxes, labels: the objects of an image, shapes (G, 4) and (G,).
        """
        assigned = self.assigner.assign(InstanceData(priors=anchors), InstanceData(bboxes=boxes, labels=labels)).gt_inds
        positive = assigned.nonzero().squeeze(1)
        objects = assigned[positive] - 1
        anchor_labels = labels.new_full((len(anchors),), self.num_classes)
        anchor_labels[positive] = labels[objects]
        deltas = anchors.new_zeros(anchors.shape)
        deltas[positive] = self.bbox_coder.encode(anchors[positive], boxes[objects])
        return anchor_labels, deltas

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[None],
        mlvl_priors: list[Tensor],
        img_meta: dict,
        cfg: dict | None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceData:
        """Return one image's detections, by descending score.

        MMDetection limits the candidates of each level, the release those of each class.
        """
        cfg = cfg or self.test_cfg
        class_scores = join_levels([level[None] for level in cls_score_list], self.cls_out_channels)[0, :, 1:].sigmoid()
        scores, anchors = class_scores.topk(min(cfg['nms_pre'], len(class_scores)), dim=0)  # (K, classes)
        rank, labels = (scores > cfg['score_thr']).nonzero(as_tuple=True)
        scores, anchors = scores[rank, labels], anchors[rank, labels]
        deltas = join_levels([level[None] for level in bbox_pred_list], 4)[0, anchors]
        boxes = self.bbox_coder.decode(torch.cat(mlvl_priors)[anchors], deltas, img_meta['batch_input_shape'])
        kept, scores = self._nms(boxes, scores, labels, cfg)
        boxes = boxes[kept]
        return InstanceData(
            bboxes=boxes / scale_factors(boxes, img_meta) if rescale else boxes, scores=scores, labels=labels[kept]
        )

    def _nms(self, boxes: Tensor, scores: Tensor, labels: Tensor, cfg: dict) -> tuple[Tensor, Tensor]:
        """Return the indices of the best ``max_per_img`` boxes that NMS keeps and their scores, by descending score.

        The worse candidates can't suppress better ones, so they are left out as long as enough of the better are kept:
        80 classes may have 400 000, which would take minutes on a CPU. Soft NMS sees the better ones alone.

        Args:
            boxes: shape (K, 4).
            scores, labels: shape (K,).
            cfg: ``nms`` and ``max_per_img``.
        """
        order = scores.argsort(descending=True, stable=True)
        limit = cfg['max_per_img']
        for count in (10 * limit, 100 * limit, len(order)):
            best = order[:count]
            kept, found = nms_of_image(boxes[best], scores[best], labels[best], self.num_classes, cfg['nms'])
            if len(kept) >= limit or count >= len(order):
                break
        return best[kept[:limit]], found[:limit]
