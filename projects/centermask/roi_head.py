"""Mask branch of CenterMask (paper, Fig. 2, right): RoI features, SAG-Mask head and mask scoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from .boxes import clip_boxes, scale_factors
from .losses import weight_of_local_mean
from .mask_pasting import encode, paste
from .mask_targets import has_outline, rasterise_in_rois


class Masks(NamedTuple):
    """Output of the mask branch for R RoIs."""

    logits: Tensor  # (R, 28, 28), of each RoI's class
    ious: Tensor | None  # (R,), predicted mask IoU; None without a mask scoring head


class RoIs(NamedTuple):
    """Positive RoIs of one image."""

    boxes: Tensor  # (R, 4)
    labels: Tensor  # (R,)
    objects: Tensor  # (R,), the index of each RoI's object


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device without waiting for what the device computes."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == 'cuda' else tensor.to(device)


@MODELS.register_module()
class CenterMaskRoIHead(StandardRoIHead):
    """Masks for the boxes of the box head.

    In training, the RoIs are detections and ground-truth boxes that overlap an object by at least half. Objects without
    an outline are for the box head alone: their RoIs aren't used. Masks may be polygons or bitmaps.

    Args:
        mask_roi_extractor: config of a :class:`ScaleAdaptiveRoIExtractor`.
        mask_head: config of a :class:`SAGMaskHead`.
        mask_iou_head: config of a :class:`MaskScoringHead`; None ranks masks by the detection score (Table 1).
        pasting: ``'sampled'`` (star recipe): boxes are clipped to the image after the mask branch, empty ones dropped,
            and masks sampled in the exact boxes. ``'resized'`` (paper recipe): boxes come clipped, and masks are
            resized to whole pixels.
        sync_avg_factor: whether losses are means over the RoIs of all processes, independent of their number, or over
            each process's own (both releases).
        train_cfg: with ``assigner``, ``sampler`` and ``mask_size``.
        test_cfg: with ``mask_thr_binary`` and ``mask_format``: ``'tensor'`` (default), bool masks (N, H, W), or
            ``'rle'``, an :class:`RLEMasks`.
    """

    def __init__(
        self,
        mask_roi_extractor: dict,
        mask_head: dict,
        mask_iou_head: dict | None = None,
        pasting: Literal['sampled', 'resized'] = 'sampled',
        sync_avg_factor: bool = True,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
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

    def forward(
        self, x: Sequence[Tensor], boxes: list[Tensor], labels: list[Tensor], img_metas: Sequence[dict]
    ) -> Masks:
        """Return the masks of R boxes and their predicted IoU.

        Args:
            x: levels of the pyramid, from P3 on.
            boxes: of each image, in pixels of the resized image, shape (n, 4).
            labels: classes of the boxes of each image, shape (n,).
            img_metas: ``img_shape`` of each image: its size without padding.
        """
        rois = bbox2roi(boxes)  # (R, 5)
        image_areas = rois.new_tensor(
            [meta['img_shape'][0] * meta['img_shape'][1] for meta in img_metas], dtype=torch.float32
        )
        features = self.mask_roi_extractor(x[: self.mask_roi_extractor.num_inputs], rois, image_areas)
        return self.heads(features, torch.cat(labels))

    def heads(self, features: Tensor, labels: Tensor) -> Masks:
        """Return the masks of RoI features (R, C, 14, 14) of classes ``labels`` (R,), and their predicted IoU."""
        logits = self.mask_head(features, labels)
        return Masks(logits, None if self.mask_iou_head is None else self.mask_iou_head(features, logits, labels))

    def loss(self, x: Sequence[Tensor], detections: list[InstanceData], data_samples: SampleList) -> dict[str, Tensor]:
        """Return ``loss_mask`` and ``loss_mask_iou``, scalars.

        Without an object or a positive RoI both are 0, but still reach every parameter, as DDP expects.

        Args:
            x: levels of the pyramid, from P3 on.
            detections: boxes in pixels of the resized images.
            data_samples: the images' metainfo and ground truth.
        """
        batch_gt_instances, _, img_metas = unpack_gt_instances(data_samples)
        sampled = [self.sample(*pair) for pair in zip(detections, batch_gt_instances, strict=True)]
        # Sampling has waited for the device; from here on the host doesn't, and prepares targets while the masks are
        # computed.
        on_host = [(rois.boxes.detach().cpu().double().numpy(), rois.objects.tolist()) for rois in sampled]
        masks = self(x, [rois.boxes for rois in sampled], [rois.labels for rois in sampled], img_metas)
        mask_targets, area_ratios = (
            _to_device(target, masks.logits.device) for target in self._targets(on_host, batch_gt_instances, img_metas)
        )

        num_rois = len(mask_targets)
        weight = weight_of_local_mean(num_rois, masks.logits) if self.sync_avg_factor else 1
        if num_rois:
            # FCNMaskHead's loss picks each class's channel. Here one channel is left.
            first_channel = torch.zeros(num_rois, dtype=torch.long, device=mask_targets.device)
            loss_mask = self.mask_head.loss_mask(masks.logits[:, None], mask_targets, first_channel)[0]
        else:
            loss_mask = masks.logits.sum() * 0
        losses = dict(loss_mask=loss_mask * weight)
        if self.mask_iou_head is not None:
            losses['loss_mask_iou'] = self.mask_iou_head.loss(
                masks.ious, masks.logits, mask_targets, area_ratios, self.sync_avg_factor
            )
        return losses

    def sample(self, detections: InstanceData, gt_instances: InstanceData) -> RoIs:
        """Return the RoIs of one image: detections and ground-truth boxes, positive from an IoU of 0.5 on."""
        candidates = InstanceData(priors=detections.bboxes)
        assigned = self.bbox_assigner.assign(candidates, gt_instances)
        sampled = self.bbox_sampler.sample(assigned, candidates, gt_instances)
        objects = sampled.pos_assigned_gt_inds
        # An object without outline takes part above, lest its RoIs learn the mask of another object around it.
        outlined = objects.new_tensor([has_outline(mask) for mask in gt_instances.masks.masks], dtype=torch.bool)
        kept = outlined[objects]
        return RoIs(sampled.pos_priors[kept], sampled.pos_gt_labels[kept], objects[kept])

    def _targets(
        self,
        sampled: list[tuple[np.ndarray, list[int]]],
        batch_gt_instances: list[InstanceData],
        img_metas: list[dict],
    ) -> tuple[Tensor, Tensor]:
        """Return masks of 0 and 1 (R, 28, 28) and area ratios (R,) of the positive RoIs of all images, on the host.

        Args:
            sampled: boxes (n, 4) and objects of each image's positive RoIs.
            batch_gt_instances, img_metas: of each image.
        """
        mask_targets, area_ratios = [], []
        for (rois, indices), gt_instances, meta in zip(sampled, batch_gt_instances, img_metas, strict=True):
            objects = [gt_instances.masks.masks[i] for i in indices]
            mask_targets.append(rasterise_in_rois(objects, rois, self.train_cfg['mask_size']))
            if self.mask_iou_head is not None:
                area_ratios.append(self.mask_iou_head.area_ratios(objects, rois, meta['img_shape'][:2]))
        ratios = np.concatenate(area_ratios or [np.zeros(0)])
        return torch.from_numpy(np.concatenate(mask_targets)), torch.from_numpy(ratios)

    def predict(
        self, x: Sequence[Tensor], detections: list[InstanceData], data_samples: SampleList, rescale: bool = False
    ) -> list[InstanceData]:
        """Return each image's detections with ``masks`` and, with a mask scoring head, ``mask_scores`` (N,).

        Args:
            x: levels of the pyramid, from P3 on.
            detections: boxes in pixels of the resized images.
            data_samples: the images' metainfo.
            rescale: whether to return boxes and masks in pixels of the original images.
        """
        img_metas = [sample.metainfo for sample in data_samples]
        masks = self(x, [image.bboxes for image in detections], [image.labels for image in detections], img_metas)
        counts = [len(image) for image in detections]
        probabilities = masks.logits.sigmoid().split(counts)
        ious = masks.ious.split(counts) if masks.ious is not None else [None] * len(counts)
        results = []
        for detected, probability, iou, meta in zip(detections, probabilities, ious, img_metas, strict=True):
            if rescale:
                detected.bboxes = detected.bboxes / scale_factors(detected.bboxes, meta)
            image_size = meta['ori_shape' if rescale else 'img_shape'][:2]
            results.append(self.postprocess(detected, probability, iou, image_size))
        return results

    def postprocess(
        self, detections: InstanceData, probabilities: Tensor, ious: Tensor | None, image_size: tuple[int, int]
    ) -> InstanceData:
        """Return the detections of one image with ``masks`` and ``mask_scores``.

        Args:
            detections: ``bboxes`` (N, 4) in pixels of the result, ``scores``, ``labels``.
            probabilities: masks in their boxes, shape (N, 28, 28).
            ious: predicted mask IoU, shape (N,), or None.
            image_size: height and width of the result in pixels.
        """
        if ious is not None:
            detections.mask_scores = detections.scores * ious
        if self.pasting == 'sampled':
            detections.bboxes = clip_boxes(detections.bboxes, image_size)
        # One transfer to the host: boxes and masks, from which empty boxes are found there.
        packed = torch.cat([detections.bboxes, probabilities.flatten(1)], dim=1).detach().cpu().numpy()
        if self.pasting == 'sampled':
            kept = np.flatnonzero((packed[:, 2:4] > packed[:, :2]).all(1))
            packed, detections = packed[kept], detections[torch.from_numpy(kept).to(detections.bboxes.device)]
        boxes, cells = packed[:, :4], packed[:, 4:].reshape(-1, *probabilities.shape[1:])
        arguments = cells, boxes, image_size, self.test_cfg['mask_thr_binary'], self.pasting
        if self.test_cfg.get('mask_format') == 'rle':
            detections.masks = encode(*arguments)
        else:
            detections.masks = torch.from_numpy(paste(*arguments)).to(detections.bboxes.device)
        return detections
