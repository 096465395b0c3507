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
        backbone, neck, bbox_head, mask_head: configs of the parts.
        num_classes: number of classes.
        fuse_conv_bn, half_precision: see :class:`FusedInference`.
        train_cfg: with the box head's ``assigner``.
        test_cfg: of both heads.
        data_preprocessor, init_cfg: as in every detector of MMDetection.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        mask_head: dict,
        num_classes: int = 80,
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
