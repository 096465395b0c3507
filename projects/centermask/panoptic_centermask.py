"""Panoptic-CenterMask: CenterMask with a semantic head beside the instance branch, as in Panoptic FPN."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.structures import PixelData
from torch import Tensor

from .detector import CenterMask

STRIDE = 32  # of P5, the coarsest level that the semantic head adds to the others


@MODELS.register_module()
class PanopticCenterMask(CenterMask):
    """Panoptic segmentation by CenterMask, a semantic head and the fusion of their results.

    The pyramid begins with P2, which the semantic head alone reads. The instance branch reads P3 to P7, as in
    :class:`CenterMask`.

    Args:
        semantic_head: config of a :class:`SemanticFPNHead`.
        panoptic_fusion: config of a :class:`PanopticFusion`; its numbers of classes are those of the heads.
        channels_last: whether to train in channels-last memory.
        **kwargs: other arguments of :class:`CenterMask`; ``num_classes`` counts things. The ``neck`` returns P2 to P7.

    Raises:
        ValueError: where ``data_preprocessor`` doesn't pad images and semantic maps to multiples of 32.
    """

    def __init__(self, semantic_head: dict, panoptic_fusion: dict, channels_last: bool = False, **kwargs) -> None:
        super().__init__(channels_last=channels_last, **kwargs)
        padding = self.data_preprocessor
        if getattr(padding, 'pad_size_divisor', 1) % STRIDE or not getattr(padding, 'pad_seg', False):
            raise ValueError(
                f'images and semantic maps are not padded to multiples of {STRIDE}, as P5 needs them: set '
                f'pad_size_divisor={STRIDE} and pad_seg=True in model.data_preprocessor'
            )
        things = self.bbox_head.num_classes
        self.semantic_head = MODELS.build(dict(semantic_head, num_things_classes=things))
        stuff = self.semantic_head.num_stuff_classes
        self.panoptic_fusion = MODELS.build(dict(panoptic_fusion, num_things_classes=things, num_stuff_classes=stuff))
        if channels_last:
            self.semantic_head.to(memory_format=torch.channels_last)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the levels P3 to P7 of images (N, 3, H, W), which the instance branch reads."""
        return super().extract_feat(batch_inputs)[1:]

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Return the losses of images (N, 3, H, W) with ground truth: CenterMask's and ``loss_seg``."""
        x = super().extract_feat(batch_inputs)  # P2 to P7
        return {
            **self.loss_by_feat(x[1:], batch_data_samples),
            **self.semantic_head.loss(x, batch_data_samples),
        }

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Return the samples with ``pred_instances``, ``pred_sem_seg`` and ``pred_panoptic_seg``.

        ``pred_instances`` are CenterMask's, with ``segment_ids`` (N,). ``pred_sem_seg.sem_seg`` holds the semantic
        classes, (1, H, W). The others are as :class:`PanopticFusion` makes them.

        Args:
            batch_inputs: normalised and padded images, shape (N, 3, H, W).
            batch_data_samples: their metainfo.
            rescale: whether to return results in pixels of the original images.
        """
        x = super().extract_feat(batch_inputs)  # P2 to P7
        instances = self.predict_by_feat(x[1:], batch_data_samples, rescale)
        semantic_maps = self.semantic_head.predict(x, [sample.metainfo for sample in batch_data_samples], rescale)
        panoptic_maps = self.panoptic_fusion.predict(instances, semantic_maps)
        for sample, semantic_map, panoptic_map in zip(batch_data_samples, semantic_maps, panoptic_maps, strict=True):
            sample.pred_sem_seg = PixelData(sem_seg=semantic_map[None])
            sample.pred_panoptic_seg = panoptic_map
        return self.add_pred_to_datasample(batch_data_samples, instances)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> tuple:
        """Return CenterMask's maps and masks, then the semantic logits (N, S + 1, H / 4, W / 4)."""
        x = super().extract_feat(batch_inputs)  # P2 to P7
        return (*self._forward_by_feat(x[1:], batch_data_samples), self.semantic_head(x)['seg_preds'])
