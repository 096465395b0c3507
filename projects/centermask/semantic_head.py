"""Semantic head of Panoptic-CenterMask: Panoptic FPN's, trained at the size of the images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.seg_heads import PanopticFPNHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.model import kaiming_init
from torch import Tensor

CHANNELS = 8  # whose logits are enlarged at once


@MODELS.register_module()
class SemanticFPNHead(PanopticFPNHead):
    """Semantic segmentation from P2 to P5 (Panoptic FPN, arXiv 1901.02446, section 3.1), as CenterMask2 has it.

    Class 0 is every thing, 1 to S are the stuff classes. MMDetection's head has the things last, shrinks the targets
    instead of enlarging the logits, and counts ignored pixels in the mean.

    Args: of :class:`mmdet.models.PanopticFPNHead`. ``loss_seg`` needs ``avg_non_ignore=True`` for that mean.
    """

    def init_weights(self) -> None:
        """Initialise all convs by He's method for the outputs (``fan_out``)."""
        super().init_weights()
        kaiming_init(self.conv_logits)

    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Return ``loss_seg``, the mean over the pixels of the batch that aren't ignored; 0 if all are.

        Args:
            x: levels of the pyramid, from P2 on.
            batch_data_samples: with ``gt_sem_seg.sem_seg``, shape (1, H, W), padded to the input's size.
        """
        logits = self._enlarged(self(x)['seg_preds'].float())  # (N, S + 1, H, W)
        classes = torch.cat([sample.gt_sem_seg.sem_seg for sample in batch_data_samples]).long()  # (N, H, W)
        return dict(loss_seg=self.loss_seg(logits, classes))

    def predict(self, x: Sequence[Tensor], batch_img_metas: Sequence[dict], rescale: bool = False) -> list[Tensor]:
        """Return the class of each pixel of each image, shape (H, W).

        Args:
            x: levels of the pyramid, from P2 on.
            batch_img_metas: ``img_shape``, the size of an image without its padding, and to rescale ``ori_shape``.
            rescale: whether to return maps of the original images' sizes.
        """
        logits = self(x)['seg_preds'].float().contiguous()  # (N, S + 1, H / 4, W / 4)
        return [
            self._classify(image[None], meta['img_shape'][:2], meta['ori_shape' if rescale else 'img_shape'][:2])
            for image, meta in zip(logits, batch_img_metas, strict=True)
        ]

    def _classify(self, logits: Tensor, image_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Return the class with the largest logit at each pixel, shape ``size``; of equal ones the first.

        A few channels are enlarged at once: all of them at the size of a photograph would take gigabytes.
        """
        height, width = image_size
        largest = logits.new_full(size, -torch.inf)
        classes = torch.zeros(size, dtype=torch.long, device=logits.device)
        for first in range(0, self.num_classes, CHANNELS):
            enlarged = self._enlarged(logits[:, first : first + CHANNELS])[..., :height, :width]
            enlarged = F.interpolate(enlarged, size, mode='bilinear', align_corners=False)
            values, indices = enlarged[0].max(0)
            larger = values > largest
            largest = torch.where(larger, values, largest)
            classes = torch.where(larger, indices + first, classes)
        return classes

    def _enlarged(self, logits: Tensor) -> Tensor:
        """Return logits at the size of the padded input."""
        return F.interpolate(logits, scale_factor=1 / self.seg_rescale_factor, mode='bilinear', align_corners=False)
