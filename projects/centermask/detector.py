"""CenterMask (paper, Fig. 2): an FCOS detector with a mask branch on the boxes that it finds."""

from __future__ import annotations

import torch
from mmcv.ops import ModulatedDeformConv2d
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from centermask.checkpoints.loading import translate_released


@MODELS.register_module()
class CenterMask(SingleStageDetector):
    """image → backbone → neck → box head → RoI head → result.

    Args:
        backbone, neck, bbox_head, roi_head: configs of the parts.
        num_classes: classes of objects, given to every head.
        channels_last: whether convs run on features whose channels lie next to each other in memory: the same numbers,
            faster on CPUs.
        train_cfg: ``max_per_img``, the detections an image that training takes as RoIs, and what the RoI head reads.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms``, ``max_per_img`` (box head) and ``mask_thr_binary`` (RoI head).
        data_preprocessor, init_cfg: as every detector of MMDetection takes them.

    Raises:
        ValueError: for ``channels_last`` with deformable convs, which MMCV computes wrongly in that memory order.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        roi_head: dict,
        num_classes: int = 80,
        channels_last: bool = False,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            backbone,
            neck,
            dict(bbox_head, num_classes=num_classes),
            train_cfg,
            test_cfg,
            data_preprocessor,
            init_cfg,
        )
        heads = {
            name: dict(roi_head[name], num_classes=num_classes)
            for name in ('mask_head', 'mask_iou_head')
            if roi_head.get(name) is not None
        }
        self.roi_head = MODELS.build(dict(roi_head, train_cfg=train_cfg, test_cfg=test_cfg, **heads))
        if channels_last:
            if any(isinstance(module, ModulatedDeformConv2d) for module in self.modules()):
                raise ValueError("deformable convs don't run in channels-last memory: leave channels_last=False")
            self.to(memory_format=torch.channels_last)

    def _load_from_state_dict(self, state_dict: dict, *args, **kwargs) -> None:
        """Take a released checkpoint as it is, also from MMDetection's own loaders (``init_detector``)."""
        translate_released(state_dict)
        super()._load_from_state_dict(state_dict, *args, **kwargs)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Return the five losses of images (N, 3, H, W) with ground truth."""
        x = self.extract_feat(batch_inputs)
        proposal_cfg = dict(self.test_cfg, max_per_img=self.train_cfg['max_per_img'])
        losses, detections = self.bbox_head.loss_and_predict(x, batch_data_samples, proposal_cfg)
        losses.update(self.roi_head.loss(x, detections, batch_data_samples))
        return losses

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Return the samples with ``pred_instances``: bboxes, scores, labels, masks and mask_scores."""
        x = self.extract_feat(batch_inputs)
        detections = self.bbox_head.predict(x, batch_data_samples, rescale=False)
        results = self.roi_head.predict(x, detections, batch_data_samples, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> tuple:
        """Return class, box and centerness maps, then mask logits and mask IoU of the boxes found in them."""
        x = self.extract_feat(batch_inputs)
        maps = self.bbox_head(x)
        detections = self.bbox_head.predict_by_feat(*maps, batch_img_metas=[s.metainfo for s in batch_data_samples])
        return (*maps, *self.roi_head(x, detections, batch_data_samples))
