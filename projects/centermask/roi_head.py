"""The mask branch of CenterMask (paper, Fig. 2, right): RoI features, SAG-Mask head and mask scoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from .arguments import dicts, flags, given, one_of, shares, whole_numbers
from .boxes import clip_boxes, scale_factors
from .losses import weight_of_local_mean
from .mask_pasting import PASTINGS, encode, paste
from .mask_targets import rasterise_in_rois


class Masks(NamedTuple):
    """What the mask branch says of RoIs."""

    logits: Tensor  # (R, 28, 28), of each RoI's own class
    ious: Tensor | None  # (R,), None without a mask scoring head


def _image_areas(img_metas: Sequence[dict], like: Tensor) -> Tensor:
    """Return the area of each resized image without its padding, in pixels, shape (N,)."""
    return torch.tensor(
        [meta['img_shape'][0] * meta['img_shape'][1] for meta in img_metas], dtype=torch.float32, device=like.device
    )


@MODELS.register_module()
class CenterMaskRoIHead(StandardRoIHead):
    """Masks for the boxes that the box head found.

    In training, detections and ground-truth boxes that overlap an object by at least half are the RoIs.

    Args:
        mask_roi_extractor: config of a :class:`ScaleAdaptiveRoIExtractor`.
        mask_head: config of a :class:`SAGMaskHead`.
        mask_iou_head: config of a :class:`MaskScoringHead`; None ranks masks by the detection score (Table 1).
        pasting: ``'sampled'`` (star recipe: boxes are clipped to the image after the mask branch, empty ones dropped, and
            masks sampled at the exact box) or ``'resized'`` (paper recipe: boxes come clipped, masks are resized to
            whole pixels).
        sync_avg_factor: whether losses are means over the RoIs of all processes, so that any number of processes
            learns the same from the same images, or over each one's own (both releases).
        train_cfg: with ``assigner``, ``sampler`` and ``mask_size``.
        test_cfg: with ``mask_thr_binary`` and ``mask_format``: ``'tensor'`` (default), bool masks (N, H, W), or
            ``'rle'``, an :class:`RLEMasks`.

    Raises:
        ValueError: for a ``pasting``, ``sync_avg_factor`` or ``mask_format`` of none of these values.
    """

    def __init__(
        self,
        mask_roi_extractor: dict,
        mask_head: dict,
        mask_iou_head: dict | None = None,
        pasting: str = 'sampled',
        sync_avg_factor: bool = True,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        name = type(self).__name__
        one_of(name, 'pasting', pasting, tuple(PASTINGS))
        flags(name, dict(sync_avg_factor=sync_avg_factor))
        dicts(name, dict(train_cfg=train_cfg, test_cfg=test_cfg))
        whole_numbers(name, given(train_cfg, 'mask_size', within='train_cfg'))
        shares(name, given(test_cfg, 'mask_thr_binary', within='test_cfg'))
        one_of(name, 'test_cfg.mask_format', (test_cfg or {}).get('mask_format', 'tensor'), ('tensor', 'rle'))
        super().__init__(
            mask_roi_extractor=mask_roi_extractor,
            mask_head=mask_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg,
        )
        self.pasting = pasting
        self.sync_avg_factor = sync_avg_factor
        self.mask_iou_head = MODELS.build(mask_iou_head) if mask_iou_head is not None else None

    def _features(self, x: Sequence[Tensor], rois: Tensor, img_metas: Sequence[dict]) -> Tensor:
        return self.mask_roi_extractor(x[: self.mask_roi_extractor.num_inputs], rois, _image_areas(img_metas, rois))

    def mask_forward(self, x: Sequence[Tensor], rois: Tensor, labels: Tensor, img_metas: Sequence[dict]) -> Masks:
        """Return masks and their predicted IoU for RoIs (R, 5) of classes ``labels`` (R,)."""
        return self.forward_heads(self._features(x, rois, img_metas), labels)

    def forward_heads(self, features: Tensor, labels: Tensor) -> Masks:
        """Return masks and their predicted IoU from RoI features (R, C, 14, 14) of classes ``labels`` (R,)."""
        logits = self.mask_head(features, labels)
        return Masks(logits, None if self.mask_iou_head is None else self.mask_iou_head(features, logits, labels))

    def forward(self, x: Sequence[Tensor], detections: list[InstanceData], data_samples: SampleList) -> Masks:
        """Return masks and their predicted IoU for the detections of all images, in their order."""
        rois = bbox2roi([detected.bboxes for detected in detections])
        labels = torch.cat([detected.labels for detected in detections])
        return self.mask_forward(x, rois, labels, [sample.metainfo for sample in data_samples])

    def loss(self, x: Sequence[Tensor], detections: list[InstanceData], data_samples: SampleList) -> dict[str, Tensor]:
        """Return ``loss_mask`` and ``loss_mask_iou``, scalars.

        Without an object or a positive RoI both are 0, yet touch every parameter: processes that train together must
        agree on which gradients they exchange.
        """
        batch_gt_instances, _, img_metas = unpack_gt_instances(data_samples)
        sampled = [self.sample(found, truth) for found, truth in zip(detections, batch_gt_instances, strict=True)]
        labels = torch.cat([result.pos_gt_labels for result in sampled])
        masks = self.mask_forward(x, bbox2roi([result.pos_priors for result in sampled]), labels, img_metas)

        targets, area_ratios = [], []
        for result, truth, meta in zip(sampled, batch_gt_instances, img_metas, strict=True):
            rois = result.pos_priors.detach().cpu().double().numpy()
            objects = [truth.masks.masks[i] for i in result.pos_assigned_gt_inds.tolist()]
            targets.append(rasterise_in_rois(objects, rois, self.train_cfg['mask_size']))
            if self.mask_iou_head is not None:
                area_ratios.append(self.mask_iou_head.area_ratios(objects, rois, meta['img_shape'][:2]))
        mask_targets = torch.from_numpy(np.concatenate(targets)).to(masks.logits.device)  # (R, 28, 28)

        weight = weight_of_local_mean(len(labels), masks.logits) if self.sync_avg_factor else 1
        if len(labels):
            # FCNMaskHead's loss picks a class's channel, of which one is left here, and has a dimension too many.
            loss_mask = self.mask_head.loss_mask(masks.logits[:, None], mask_targets, torch.zeros_like(labels))[0]
        else:
            loss_mask = masks.logits.sum() * 0
        losses = dict(loss_mask=loss_mask * weight)
        if self.mask_iou_head is not None:
            losses['loss_mask_iou'] = self.mask_iou_head.loss(
                masks.ious, masks.logits, mask_targets, np.concatenate(area_ratios), self.sync_avg_factor
            )
        return losses

    def sample(self, detected: InstanceData, truth: InstanceData) -> SamplingResult:
        """Return the RoIs of one image: detections and ground-truth boxes, positive from an IoU of 0.5 on."""
        candidates = InstanceData(priors=detected.bboxes)
        return self.bbox_sampler.sample(self.bbox_assigner.assign(candidates, truth), candidates, truth)

    def predict(
        self, x: Sequence[Tensor], detections: list[InstanceData], data_samples: SampleList, rescale: bool = False
    ) -> list[InstanceData]:
        """Return each image's detections with ``masks`` and, with a mask scoring head, ``mask_scores`` (N,).

        Args:
            x: levels of the pyramid.
            detections: boxes in pixels of the resized images.
            data_samples: the images' metainfo.
            rescale: whether boxes and masks are in pixels of the original images, else of the resized ones.
        """
        masks = self.forward(x, detections, data_samples)
        counts = [len(detected) for detected in detections]
        probabilities = masks.logits.sigmoid().split(counts)
        ious = masks.ious.split(counts) if masks.ious is not None else [None] * len(counts)
        results = []
        for detected, probability, iou, sample in zip(detections, probabilities, ious, data_samples, strict=True):
            meta = sample.metainfo
            if rescale:
                detected.bboxes = detected.bboxes / scale_factors(detected.bboxes, meta)
            results.append(self.finish(detected, probability, iou, meta['ori_shape' if rescale else 'img_shape'][:2]))
        return results

    def finish(
        self, detected: InstanceData, probabilities: Tensor, ious: Tensor | None, image_size: tuple[int, int]
    ) -> InstanceData:
        """Give detections of one image their masks and mask scores.

        Args:
            detected: ``bboxes`` (N, 4) in pixels of the result, ``scores``, ``labels``.
            probabilities: masks in their boxes, shape (N, 28, 28).
            ious: predicted mask IoU, shape (N,), or None.
            image_size: height and width of the result in pixels.
        """
        if ious is not None:
            detected.mask_scores = detected.scores * ious
        if self.pasting == 'sampled':
            detected.bboxes = clip_boxes(detected.bboxes, image_size)
        # All that pasting needs, and which boxes are empty, in one transfer to the host.
        needed = torch.cat([detected.bboxes, probabilities.flatten(1)], dim=1).detach().cpu().numpy()
        if self.pasting == 'sampled':
            kept = np.flatnonzero((needed[:, 2:4] > needed[:, :2]).all(1))
            needed, detected = needed[kept], detected[torch.from_numpy(kept).to(detected.bboxes.device)]
        boxes, cells = needed[:, :4], needed[:, 4:].reshape(-1, *probabilities.shape[1:])
        how = (image_size, self.test_cfg['mask_thr_binary'], self.pasting)
        if self.test_cfg.get('mask_format') == 'rle':
            detected.masks = encode(cells, boxes, *how)
        else:
            detected.masks = torch.from_numpy(paste(cells, boxes, *how)).to(detected.bboxes.device)
        return detected
