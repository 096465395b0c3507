"""TensorMask (compared in Table 5): dense sliding-window instance segmentation (https://arxiv.org/abs/1903.12174)."""

from __future__ import annotations

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from centermask.fast.fused_inference import FusedInference


@MODELS.register_module()
class TensorMask(FusedInference, SingleStageDetector):
    """Instance segmentation by a backbone, a pyramid, a box head and a mask head on sliding windows (section 5).

    Args:
        bbox_head, mask_head: configs of the heads.
        num_classes: number of classes.
        test_cfg: of both heads.
        **kwargs: ``backbone``, ``neck`` and other arguments of :class:`FusedInference` and of MMDetection's
            ``SingleStageDetector``; ``train_cfg`` has the box head's ``assigner``.
    """

    def __init__(
        self, bbox_head: dict, mask_head: dict, num_classes: int = 80, test_cfg: dict | None = None, **kwargs
    ) -> None:
        super().__init__(bbox_head=dict(bbox_head, num_classes=num_classes), test_cfg=test_cfg, **kwargs)
        self.mask_head = MODELS.build(dict(mask_head, test_cfg=test_cfg))

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Return the losses of images (N, 3, H, W) with ground truth. MMEngine adds them up."""
        x = self.extract_feat(batch_inputs)  # P2 to P7
        box_losses, positives = self.bbox_head.loss_and_positives(x, batch_data_samples)
        return {**box_losses, **self.mask_head.loss(x, positives, batch_data_samples)}

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Return the samples with ``pred_instances``: bboxes, scores, labels and masks.

        Args:
            batch_inputs: normalised and padded images, shape (N, 3, H, W).
            batch_data_samples: their metainfo.
            rescale: whether to return boxes and masks in pixels of the original images.
        """
        x = self.extract_feat(batch_inputs)  # P2 to P7
        detections = self.bbox_head.predict(x, batch_data_samples, rescale=rescale)
        results = self.mask_head.predict(x, detections, batch_data_samples, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple:
        """Return class and box maps of the levels, and the masks of all windows."""
        x = self.extract_feat(batch_inputs)
        return (*self.bbox_head(x), self.mask_head(x))
