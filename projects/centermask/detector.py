"""CenterMask (paper, Fig. 2): an FCOS detector with a mask branch on its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.ops import ModulatedDeformConv2d
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from .boxes import clip_to_image
from .fast.fused_inference import FusedInference


@MODELS.register_module()
class CenterMask(FusedInference, SingleStageDetector):
    """Instance segmentation by a backbone, a pyramid, a box head and a RoI head (Fig. 2).

    Args:
        backbone, neck, bbox_head, roi_head: configs of the parts. ``roi_head=None`` leaves FCOS alone (Table 1), which
            finds boxes without masks.
        num_classes: number of classes, passed to every head.
        channels_last: whether to train in channels-last memory: the same numbers, faster on CPUs.
        fuse_conv_bn, half_precision: see :class:`FusedInference`.
        train_cfg: ``max_per_img``, the most detections an image that become RoIs in training, and the RoI head's.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms``, ``max_per_img`` (box head) and ``mask_thr_binary`` (RoI head).
        data_preprocessor, init_cfg: as in every detector of MMDetection.

    Raises:
        ValueError: for an extractor whose strides aren't the box head's first ones, and for ``channels_last`` with
            deformable convs, which MMCV computes wrongly in that memory format.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        roi_head: dict | None,
        num_classes: int = 80,
        channels_last: bool = False,
        fuse_conv_bn: bool = True,
        half_precision: bool = False,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            backbone,
            neck,
            dict(bbox_head, num_classes=num_classes),
            train_cfg,
            test_cfg,
            data_preprocessor,
            init_cfg,
            fuse_conv_bn=fuse_conv_bn,
            half_precision=half_precision,
        )
        self.roi_head: Any = None
        if roi_head is not None:
            heads = {
                name: dict(roi_head[name], num_classes=num_classes)
                for name in ('mask_head', 'mask_iou_head')
                if roi_head.get(name) is not None
            }
            self.roi_head = MODELS.build(dict(roi_head, train_cfg=train_cfg, test_cfg=test_cfg, **heads))
            pooled = self.roi_head.mask_roi_extractor.featmap_strides
            strides = [stride for stride, _ in self.bbox_head.prior_generator.strides]
            if pooled != strides[: len(pooled)]:
                raise ValueError(f'featmap_strides {pooled} must be the first strides of the box head, {strides}')
        if channels_last:
            if any(isinstance(module, ModulatedDeformConv2d) for module in self.modules()):
                raise ValueError("deformable convs don't run in channels-last memory: leave channels_last=False")
            self.to(memory_format=torch.channels_last)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Return the losses of images (N, 3, H, W) with ground truth, the terms of Eq. 8 and the mask scoring loss.

        MMEngine adds them up. FCOS alone has the first three.
        """
        return self.loss_by_feat(self.extract_feat(batch_inputs), batch_data_samples)

    def loss_by_feat(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Return the losses of :meth:`loss` from the levels ``x`` of the pyramid, P3 to P7."""
        if self.roi_head is None:
            return self.bbox_head.loss(x, batch_data_samples)
        proposal_cfg = ConfigDict(self.test_cfg, max_per_img=self.train_cfg['max_per_img'])
        box_losses, detections = self.bbox_head.loss_and_predict(x, batch_data_samples, proposal_cfg)
        mask_losses = self.roi_head.loss(x, detections, batch_data_samples)
        return {**box_losses, **mask_losses}  # Eq. 8: L_cls, L_box, L_center, L_mask

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Return the samples with ``pred_instances``: bboxes, scores, labels, masks and mask_scores.

        Args:
            batch_inputs: normalised and padded images, shape (N, 3, H, W).
            batch_data_samples: their metainfo.
            rescale: whether to return boxes and masks in pixels of the original images.
        """
        results = self.predict_by_feat(self.extract_feat(batch_inputs), batch_data_samples, rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def predict_by_feat(
        self, x: Sequence[Tensor], batch_data_samples: SampleList, rescale: bool = True
    ) -> list[InstanceData]:
        """Return the ``pred_instances`` of :meth:`predict` from the levels ``x`` of the pyramid, P3 to P7."""
        if self.roi_head is None:
            detections = self.bbox_head.predict(x, batch_data_samples, rescale=rescale)
            sizes = [sample.metainfo['ori_shape' if rescale else 'img_shape'][:2] for sample in batch_data_samples]
            return [self.clip_detections(*pair) for pair in zip(detections, sizes, strict=True)]
        detections = self.bbox_head.predict(x, batch_data_samples, rescale=False)
        return self.roi_head.predict(x, detections, batch_data_samples, rescale=rescale)

    def clip_detections(self, detections: InstanceData, image_size: tuple[int, int]) -> InstanceData:
        """Return the detections of FCOS alone on one image, clipped like those with masks.

        Args:
            detections: ``bboxes`` (N, 4) in pixels of the result, ``scores``, ``labels``.
            image_size: height and width of the result in pixels.
        """
        # With legacy_boxes the box head has clipped them already.
        return detections if self.bbox_head.legacy_boxes else clip_to_image(detections, image_size)[0]

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> tuple:
        """Return class, box and centerness maps, then mask logits and mask IoU of the detections."""
        return self._forward_by_feat(self.extract_feat(batch_inputs), batch_data_samples)

    def _forward_by_feat(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> tuple:
        """Return the maps and masks of :meth:`_forward` from the levels ``x`` of the pyramid, P3 to P7."""
        maps = self.bbox_head(x)
        if self.roi_head is None:
            return maps
        metas = [sample.metainfo for sample in batch_data_samples]
        detections = self.bbox_head.predict_by_feat(*maps, batch_img_metas=metas)
        boxes, labels = [image.bboxes for image in detections], [image.labels for image in detections]
        return (*maps, *self.roi_head(x, boxes, labels, metas))
