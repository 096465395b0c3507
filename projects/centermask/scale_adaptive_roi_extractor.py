"""Adaptive RoI assignment (paper, section 2.3): the pyramid level that an RoI is pooled from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class ScaleAdaptiveRoIExtractor(BaseRoIExtractor):
    """RoIAlign from the level k that an RoI's size assigns, clamped to [k_min, k_max].

    Args:
        roi_layer: MMCV's config of the RoI operator.
        out_channels: channels of the features.
        featmap_strides: strides of the levels, consecutive powers of two; (8, 16, 32) is P3 to P5
            (other ranges in Table 2).
        assignment: ``'scale_adaptive'`` (Eq. 2) or ``'fpn'`` (Eq. 1); compared in Table 1.
        legacy_boxes: whether an RoI's area is (w + 1)(h + 1) (paper recipe) or w h.

    Raises:
        ValueError: for other ``featmap_strides``.
    """

    def __init__(
        self,
        roi_layer: dict,
        out_channels: int,
        featmap_strides: Sequence[int],
        assignment: Literal['scale_adaptive', 'fpn'] = 'scale_adaptive',
        legacy_boxes: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        strides = list(featmap_strides)
        super().__init__(roi_layer, out_channels, strides, init_cfg)
        self.assignment = assignment
        self.legacy_boxes = legacy_boxes
        self.k_min = strides[0].bit_length() - 1  # stride 8 = 2³ is P3
        self.k_max = strides[-1].bit_length() - 1
        if strides != [2**k for k in range(self.k_min, self.k_max + 1)]:
            raise ValueError(f'featmap_strides must be consecutive powers of two, such as (8, 16, 32), not {strides}')

    def map_roi_levels(self, rois: Tensor, image_areas: Tensor) -> Tensor:
        """Return the index into ``featmap_strides`` of each RoI's level, shape (R,).

        Args:
            rois: image index in the batch, x1, y1, x2, y2 in pixels of the resized images, shape (R, 5).
            image_areas: area of each resized image without its padding, in pixels, shape (N,).
        """
        sizes = (rois[:, 3:] - rois[:, 1:3]).float() + int(self.legacy_boxes)
        roi_areas = sizes[:, 0] * sizes[:, 1]
        if self.assignment == 'scale_adaptive':
            k = torch.ceil(self.k_max - torch.log2(image_areas[rois[:, 0].long()] / roi_areas))  # Eq. 2
        else:
            k = torch.floor(4 + torch.log2(roi_areas.sqrt() / 224 + 1e-6))  # Eq. 1, with the 1e-6 of released code
        return k.clamp(self.k_min, self.k_max).long() - self.k_min

    def forward(self, feats: Sequence[Tensor], rois: Tensor, image_areas: Tensor) -> Tensor:
        """Return features of the RoIs, shape (R, C, 14, 14) for a 14×14 ``roi_layer``.

        Args:
            feats: one (N, C, H, W) for each of ``featmap_strides``.
            rois, image_areas: as in :meth:`map_roi_levels`; R may be 0.
        """
        rois = rois.float()  # half precision would move boxes by pixels, and RoIAlign has no bfloat16
        levels = self.map_roi_levels(rois, image_areas)
        pooled = rois.new_zeros(len(rois), self.out_channels, *self.roi_layers[0].output_size)
        for level, (feat, layer) in enumerate(zip(feats, self.roi_layers, strict=True)):
            indices = (levels == level).nonzero().squeeze(1)
            if indices.numel():
                # MMCV's RoIAlign misreads channels-last memory.
                pooled[indices] = layer(feat.float().contiguous(), rois[indices])
        return pooled
