"""ShapeMask (compared in Table 5): RetinaNet with a mask branch that starts from the usual shapes of a class."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from centermask.fast.fused_inference import FusedInference
from centermask.utils.errors import InputError


@MODELS.register_module()
class ShapeMask(FusedInference, SingleStageDetector):
    """Instance segmentation by a RetinaNet and masks in its boxes (arXiv 1904.03239).

    Args:
        bbox_head, roi_head: configs of the heads.
        num_classes: number of classes, passed to both heads.
        train_cfg: the box head's ``assigner``, and the settings of :class:`ShapeMaskRoIHead`.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms``, ``max_per_img`` (box head) and ``mask_thr_binary`` (RoI head).
        **kwargs: ``backbone``, ``neck`` and other arguments of :class:`FusedInference` and of MMDetection's
            ``SingleStageDetector``. Sides of the input have to be multiples of 128.
    """

    def __init__(
        self,
        bbox_head: dict,
        roi_head: dict,
        num_classes: int = 80,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(
            bbox_head=dict(bbox_head, num_classes=num_classes), train_cfg=train_cfg, test_cfg=test_cfg, **kwargs
        )
        self.roi_head: Any = MODELS.build(
            dict(roi_head, num_classes=num_classes, train_cfg=train_cfg, test_cfg=test_cfg)
        )

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Return the losses of classes, boxes, priors, coarse and fine masks; MMEngine adds them up.

        Raises:
            InputError: the batch is a single place on P7, of which BN has no variance.
        """
        if batch_inputs[:, 0].numel() <= 128**2:
            raise InputError(
                "ShapeMask can't learn from a batch of one image of 128×128 pixels, which is a single place on P7: set "
                'train_dataloader.batch_size to 2 or more, or take larger images.'
            )
        x = self.extract_feat(batch_inputs)  # P3 to P7
        box_losses = self.bbox_head.loss(x, batch_data_samples)
        return {**box_losses, **self.roi_head.loss(x, batch_data_samples)}

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Return the samples with ``pred_instances``: bboxes, scores, labels and masks.

        Args:
            batch_inputs: normalised and padded images, shape (N, 3, H, W).
            batch_data_samples: their metainfo.
            rescale: whether to return boxes and masks in pixels of the original images.
        """
        x = self.extract_feat(batch_inputs)  # P3 to P7
        detections = self.bbox_head.predict(x, batch_data_samples, rescale=False)
        results = self.roi_head.predict(x, detections, batch_data_samples, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)
