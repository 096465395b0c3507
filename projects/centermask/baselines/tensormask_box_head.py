"""Box head of TensorMask (section 5): classes and boxes of the windows, and which windows have masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from centermask.boxes import check_nms, clip_to_image, nms_of_image, scale_factors

from .levels import join_levels


@MODELS.register_module()
class TensorMaskBoxHead(AnchorHead):
    """Class logits and box deltas of each window, by one tower of convs each.

    The losses are sums, divided by the positive windows of the process's images, at least 1.

    Args:
        num_classes: number of classes.
        in_channels: of the pyramid.
        feat_channels, box_channels: of the class tower and of the box tower.
        stacked_convs: of each tower.
        init_cfg: weights N(0, 0.01) and class scores of 0.01 by default.
        **kwargs: other arguments of :class:`mmdet.models.AnchorHead`. ``anchor_generator`` has the windows;
            ``loss_cls`` and ``loss_bbox`` take predictions, targets and ``avg_factor``; ``test_cfg`` has ``score_thr``,
            ``nms_pre`` (of all levels together), ``nms`` and ``max_per_img``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        feat_channels: int = 256,
        box_channels: int = 128,
        stacked_convs: int = 4,
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ) -> None:
        self.box_channels = box_channels
        self.stacked_convs = stacked_convs
        override = dict(type='Normal', name='conv_cls', std=0.01, bias_prob=0.01)
        init_cfg = init_cfg or dict(type='Normal', layer='Conv2d', std=0.01, override=override)
        super().__init__(num_classes, in_channels, feat_channels, init_cfg=init_cfg, **kwargs)
        self.use_sigmoid_cls, self.cls_out_channels = True, num_classes
        check_nms(self.test_cfg and self.test_cfg.get('nms'))

    def _init_layers(self) -> None:
        self.cls_convs = tower(self.in_channels, self.feat_channels, self.stacked_convs)
        self.reg_convs = tower(self.in_channels, self.box_channels, self.stacked_convs)
        self.conv_cls = nn.Conv2d(self.feat_channels, self.num_base_priors * self.num_classes, 3, padding=1)
        self.conv_reg = nn.Conv2d(self.box_channels, self.num_base_priors * 4, 3, padding=1)

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (N, A · K, H, W) and box deltas (N, A · 4, H, W) of one level, in single precision."""
        return self.conv_cls(self.cls_convs(x)).float(), self.conv_reg(self.reg_convs(x)).float()

    def windows(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the windows (M, 4) of all levels in pixels, and the strides (M,) of their levels.

        Args:
            maps: of the levels, shape (N, channels, H, W).
        """
        levels = self.prior_generator.grid_priors([level.shape[-2:] for level in maps], device=maps[0].device)
        strides = self.prior_generator.strides
        per_window = [level.new_full((len(level),), s) for level, (s, _) in zip(levels, strides, strict=True)]
        return torch.cat(levels), torch.cat(per_window)

    def loss_and_positives(
        self, x: Sequence[Tensor], data_samples: SampleList
    ) -> tuple[dict[str, Tensor], list[InstanceData]]:
        """Return ``loss_cls`` and ``loss_bbox``, scalars, and the positive windows of each image.

        Args:
            x: levels of the pyramid.
            data_samples: the images' ground truth.

        Returns:
            The positive windows have ``windows`` (P, 4) in pixels, ``numbers`` (P,) among all windows, and ``objects``
            (P,), the index of each one's object.
        """
        batch_gt_instances, _, _ = unpack_gt_instances(data_samples)
        cls_scores, bbox_preds = self(x)
        windows, strides = self.windows(cls_scores)
        logits, deltas = join_levels(cls_scores, self.num_classes), join_levels(bbox_preds, 4)
        labels = logits.new_full(logits.shape[:2], self.num_classes, dtype=torch.long)  # (N, M)
        positives, predicted, targets = [], [], []
        for i, gt_instances in enumerate(batch_gt_instances):
            positive = self.assign(windows, strides, gt_instances)
            labels[i, positive.numbers] = gt_instances.labels[positive.objects]
            predicted.append(deltas[i, positive.numbers])
            targets.append(self.bbox_coder.encode(positive.windows, gt_instances.bboxes[positive.objects]))
            positives.append(positive)
        count = max(sum(map(len, positives)), 1)
        losses = dict(
            loss_cls=self.loss_cls(logits.flatten(0, 1), labels.flatten(), avg_factor=count),
            loss_bbox=self.loss_bbox(torch.cat(predicted), torch.cat(targets), avg_factor=count),
        )
        return losses, positives

    def assign(self, windows: Tensor, strides: Tensor, gt_instances: InstanceData) -> InstanceData:
        """Return the positive windows of one image, as :meth:`loss_and_positives` does."""
        assigned = self.assigner.assign(InstanceData(priors=windows, strides=strides), gt_instances).gt_inds
        numbers = assigned.nonzero().squeeze(1)
        return InstanceData(windows=windows[numbers], numbers=numbers, objects=assigned[numbers] - 1)

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor] | None = None,
        batch_img_metas: list[dict] | None = None,
        cfg: dict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Return the detections of each image by descending score.

        Boxes are clipped to the image. Those that are empty then are dropped, and no others take their places.

        Args:
            cls_scores, bbox_preds: result of :meth:`forward`, a list of levels each.
            score_factors, with_nms: unused.
            batch_img_metas: metainfo of the images.
            cfg: replaces ``test_cfg``.
            rescale: whether to return boxes and windows in pixels of the original images.

        Returns:
            ``bboxes`` (N, 4), ``scores`` (N,), ``labels`` (N,), and of the windows that found them ``windows`` (N, 4),
            which aren't clipped, and ``numbers`` (N,) among all windows.
        """
        results = []
        for detections, meta in zip(self.detect(cls_scores, bbox_preds, cfg), batch_img_metas or [], strict=True):
            if rescale:
                factors = scale_factors(detections.bboxes, meta)
                detections.bboxes, detections.windows = detections.bboxes / factors, detections.windows / factors
            results.append(clip_to_image(detections, meta['ori_shape' if rescale else 'img_shape'][:2])[0])
        return results

    def detect(self, cls_scores: list[Tensor], bbox_preds: list[Tensor], cfg: dict | None = None) -> list[InstanceData]:
        """Return the detections of each image before clipping, in pixels of the resized images.

        Args:
            cls_scores, bbox_preds, cfg: as :meth:`predict_by_feat` takes them.
        """
        cfg = cfg or self.test_cfg
        windows, _ = self.windows(cls_scores)
        logits, deltas = join_levels(cls_scores, self.num_classes), join_levels(bbox_preds, 4)
        results = []
        for i in range(len(logits)):
            scores = logits[i].sigmoid().flatten()  # (M · K,)
            found = (scores > cfg['score_thr']).nonzero().squeeze(1)
            scores, best = scores[found].topk(min(cfg['nms_pre'], len(found)))
            numbers, labels = found[best] // self.num_classes, found[best] % self.num_classes
            boxes = self.bbox_coder.decode(windows[numbers], deltas[i, numbers])
            kept, scores = nms_of_image(boxes, scores, labels, self.num_classes, cfg['nms'])
            kept, scores = kept[: cfg['max_per_img']], scores[: cfg['max_per_img']]
            numbers = numbers[kept]
            results.append(
                InstanceData(
                    bboxes=boxes[kept], scores=scores, labels=labels[kept], windows=windows[numbers], numbers=numbers
                )
            )
        return results


def tower(in_channels: int, channels: int, convs: int) -> nn.Sequential:
    """Return 3×3 convs with ReLUs.

    In a Sequential their weights are drawn by the ``init_cfg`` around it; a ``ConvModule`` by itself draws its own.
    """
    widths = [in_channels] + [channels] * convs
    return nn.Sequential(*(ConvModule(*pair, 3, padding=1) for pair in pairwise(widths)))
