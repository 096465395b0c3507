"""CenterMask (paper, Fig. 2): an FCOS detector with a mask branch on the boxes that it finds."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmcv.ops import ModulatedDeformConv2d
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from .arguments import dicts, flags, given, refuse, whole_numbers
from .fast.fused_inference import FusedInference
from .fitting_parts import check_parts
from .roi_head import clip_to_image


@MODELS.register_module()
class CenterMask(FusedInference, SingleStageDetector):
    """image → backbone → neck → box head → RoI head → result.

    Args:
        backbone, neck, bbox_head, roi_head: configs of the parts. ``roi_head=None`` leaves FCOS alone (Table 1), which
            finds boxes without masks.
        num_classes: classes of objects, given to every head.
        channels_last: whether training's convs run on features whose channels lie next to each other in memory: the
            same numbers, faster on CPUs.
        fuse_conv_bn, half_precision: see :class:`FusedInference`.
        train_cfg: ``max_per_img``, the detections an image that training takes as RoIs, and what the RoI head reads.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms``, ``max_per_img`` (box head) and ``mask_thr_binary`` (RoI head).
        data_preprocessor, init_cfg: as every detector of MMDetection takes them.

    Raises:
        ValueError: for a ``channels_last``, ``fuse_conv_bn`` or ``half_precision`` that is neither True nor False, for
            parts that don't fit each other, and for ``channels_last`` with deformable convs, which MMCV computes
            wrongly in that memory order.
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
        init_cfg: dict | None = None,
    ) -> None:
        name = type(self).__name__
        flags(name, dict(channels_last=channels_last, fuse_conv_bn=fuse_conv_bn, half_precision=half_precision))
        whole_numbers(name, dict(num_classes=num_classes))
        dicts(name, dict(train_cfg=train_cfg, test_cfg=test_cfg))
        whole_numbers(name, given(train_cfg, 'max_per_img', within='train_cfg'))
        if isinstance(data_preprocessor, dict):
            whole_numbers(name, given(data_preprocessor, 'pad_size_divisor', within='data_preprocessor'))
            for key, least, what in (('mean', -math.inf, 'three numbers'), ('std', 0, 'three numbers above 0')):
                values = data_preprocessor.get(key)
                if values is not None and not (
                    len(values) == 3 and all(isinstance(value, int | float) and value > least for value in values)
                ):
                    refuse(name, f'data_preprocessor.{key}', f'are {what}', values)
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
        check_parts(self.backbone, self.neck, self.bbox_head, self.roi_head, train_cfg)
        if channels_last:
            if any(isinstance(module, ModulatedDeformConv2d) for module in self.modules()):
                raise ValueError("deformable convs don't run in channels-last memory: leave channels_last=False")
            self.to(memory_format=torch.channels_last)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Return the five losses of images (N, 3, H, W) with ground truth; of FCOS alone its three."""
        if self.roi_head is None:
            return super().loss(batch_inputs, batch_data_samples)
        x = self.extract_feat(batch_inputs)
        proposal_cfg = ConfigDict(self.test_cfg, max_per_img=self.train_cfg['max_per_img'])
        losses, detections = self.bbox_head.loss_and_predict(x, batch_data_samples, proposal_cfg)
        losses.update(self.roi_head.loss(x, detections, batch_data_samples))
        return losses

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Return the samples with ``pred_instances``: bboxes, scores, labels, masks and mask_scores."""
        x = self.extract_feat(batch_inputs)
        if self.roi_head is None:
            detections = self.bbox_head.predict(x, batch_data_samples, rescale=rescale)
            sizes = [sample.metainfo['ori_shape' if rescale else 'img_shape'][:2] for sample in batch_data_samples]
            results = [self.finish_boxes(*pair) for pair in zip(detections, sizes, strict=True)]
        else:
            detections = self.bbox_head.predict(x, batch_data_samples, rescale=False)
            results = self.roi_head.predict(x, detections, batch_data_samples, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def finish_boxes(self, detected: InstanceData, image_size: tuple[int, int]) -> InstanceData:
        """Return an image's result of FCOS alone: detections, clipped as :meth:`CenterMaskRoIHead.finish` clips them.

        Args:
            detected: ``bboxes`` (N, 4) in pixels of the result, ``scores``, ``labels``.
            image_size: height and width of the result in pixels.
        """
        # With legacy_boxes the box head has clipped them already.
        return detected if self.bbox_head.legacy_boxes else clip_to_image(detected, image_size)[0]

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> tuple:
        """Return class, box and centerness maps, then mask logits and mask IoU of the boxes found in them."""
        if self.roi_head is None:
            return super()._forward(batch_inputs, batch_data_samples)
        x = self.extract_feat(batch_inputs)
        maps = self.bbox_head(x)
        detections = self.bbox_head.predict_by_feat(*maps, batch_img_metas=[s.metainfo for s in batch_data_samples])
        return (*maps, *self.roi_head(x, detections, batch_data_samples))
