"""ShapeMask's crops: the features of a box, one bilinear sample a cell, from the level of its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from torch import Tensor, nn

from centermask.scale_adaptive_roi_extractor import ScaleAdaptiveRoIExtractor


class CornerRoIAlign(RoIAlign):
    """RoIAlign that reads cell i of a map at the coordinate i, where RoIAlign has the cell's corner.

    Boxes in the image are cropped exactly as by ShapeMask's release. Beyond the border they differ: the release
    extrapolates at the left and the top.
    """

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Return crops (R, C, size, size) of maps (N, C, H, W) at boxes (R, 5) with the image's index."""
        half_cell = 0.5 / self.spatial_scale  # pixels
        return super().forward(input, torch.cat([rois[:, :1], rois[:, 1:] + half_cell], 1))


class ShapeMaskCrop(ScaleAdaptiveRoIExtractor):
    """Crops from the level ⌊4 + log2(√area / 224)⌋, clamped to those of ``featmap_strides``.

    Args:
        output_size: cells along each side of a crop.
        out_channels: channels of the levels.
        featmap_strides: strides of the levels, consecutive powers of two.
    """

    def __init__(
        self,
        output_size: int = 32,
        out_channels: int = 256,
        featmap_strides: Sequence[int] = (8, 16, 32, 64, 128),
    ) -> None:
        layer = dict(output_size=output_size, sampling_ratio=1, aligned=True)
        super().__init__(layer, out_channels, featmap_strides)

    def build_roi_layers(self, layer_cfg: dict, featmap_strides: Sequence[int]) -> nn.ModuleList:
        """Return the operator of each level."""
        return nn.ModuleList(CornerRoIAlign(spatial_scale=1 / stride, **layer_cfg) for stride in featmap_strides)

    def map_roi_levels(self, rois: Tensor, image_areas: Tensor | None = None) -> Tensor:
        """Return the index into ``featmap_strides`` of each box's level, shape (R,); an empty box has the first."""
        sides = rois[:, 3:] - rois[:, 1:3]
        level = torch.floor(4 + torch.log2(sides.prod(1).sqrt() / 224))
        return level.clamp(self.k_min, self.k_max).long() - self.k_min

    def forward(self, feats: Sequence[Tensor], rois: Tensor) -> Tensor:  # type: ignore[override]
        """Return crops (R, C, 32, 32) of levels (N, C, H, W) at boxes (R, 5): image index, x1, y1, x2, y2 in pixels."""
        return super().forward(feats, rois, image_areas=rois.new_zeros(0))
