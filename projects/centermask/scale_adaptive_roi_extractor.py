"""The adaptive RoI assignment function (paper, section 2.3): which pyramid level an RoI is pooled from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from mmcv import ops
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor

from .arguments import flags, given, initialisation, is_whole, one_of, refuse, whole_numbers


@MODELS.register_module()
class ScaleAdaptiveRoIExtractor(BaseRoIExtractor):
    """RoIAlign from the level that Eq. 2 assigns: k = ceil(k_max − log2(A_input / A_RoI)), kept in [k_min, k_max].

    Args:
        roi_layer: MMCV's config of the RoI operator.
        out_channels: channels of the features.
        featmap_strides: strides of the levels, consecutive powers of two; (8, 16, 32) is P3 to P5.
        assignment: ``'scale_adaptive'`` (Eq. 2) or ``'fpn'`` (Eq. 1: k = floor(4 + log2(sqrt(w h) / 224))).
        legacy_boxes: whether an RoI's area is (w + 1)(h + 1), as in the paper recipe, instead of w h.

    Raises:
        ValueError: for an argument of none of these values.
    """

    def __init__(
        self,
        roi_layer: dict,
        out_channels: int,
        featmap_strides: Sequence[int],
        assignment: str = 'scale_adaptive',
        legacy_boxes: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        name = type(self).__name__
        one_of(name, 'assignment', assignment, ('scale_adaptive', 'fpn'))
        flags(name, dict(legacy_boxes=legacy_boxes))
        whole_numbers(name, dict(out_channels=out_channels))
        strides = list(featmap_strides) if isinstance(featmap_strides, Sequence) else []
        powers = all(is_whole(stride) and stride > 0 and stride & (stride - 1) == 0 for stride in strides)
        if not strides or not powers or any(2 * a != b for a, b in pairwise(strides)):
            refuse(name, 'featmap_strides', 'are powers of 2, each twice the one before', featmap_strides)
        if not isinstance(roi_layer, dict) or not {'type', 'output_size'} <= {*roi_layer}:
            refuse(name, 'roi_layer', 'is a dict with a type and an output_size', roi_layer)
        if not hasattr(ops, str(roi_layer['type'])):
            refuse(name, 'roi_layer.type', 'is a layer of mmcv.ops', roi_layer['type'])
        whole_numbers(name, given(roi_layer, 'output_size', within='roi_layer'))
        whole_numbers(name, given(roi_layer, 'sampling_ratio', within='roi_layer'), 0)
        initialisation(name, init_cfg)
        super().__init__(roi_layer, out_channels, strides, init_cfg)
        self.assignment = assignment
        self.legacy_boxes = legacy_boxes
        self.k_min = featmap_strides[0].bit_length() - 1  # stride 8 = 2³ is P3
        self.k_max = featmap_strides[-1].bit_length() - 1

    def map_roi_levels(self, rois: Tensor, image_areas: Tensor) -> Tensor:
        """Return the index into ``featmap_strides`` of each RoI's level, shape (R,).

        Args:
            rois: image index in the batch, x1, y1, x2, y2 in pixels of the resized images, shape (R, 5).
            image_areas: area of each resized image without its padding, in pixels, shape (N,).
        """
        sizes = (rois[:, 3:] - rois[:, 1:3]).float() + int(self.legacy_boxes)
        roi_areas = sizes[:, 0] * sizes[:, 1]
        if self.assignment == 'scale_adaptive':
            levels = torch.ceil(self.k_max - torch.log2(image_areas[rois[:, 0].long()] / roi_areas))
        else:
            levels = torch.floor(4 + torch.log2(roi_areas.sqrt() / 224))
        return levels.clamp(self.k_min, self.k_max).long() - self.k_min

    def forward(self, feats: Sequence[Tensor], rois: Tensor, image_areas: Tensor) -> Tensor:
        """Return features of the RoIs, shape (R, C, 14, 14) for a 14×14 ``roi_layer``.

        Args:
            feats: one (N, C, H, W) for each of ``featmap_strides``.
            rois, image_areas: as :meth:`map_roi_levels` takes them. Any number of RoIs, also none.
        """
        rois = rois.float()  # half precision would move boxes by pixels, and RoIAlign has no bfloat16
        levels = self.map_roi_levels(rois, image_areas)
        pooled = rois.new_zeros(len(rois), self.out_channels, *self.roi_layers[0].output_size)
        for level, (feat, layer) in enumerate(zip(feats, self.roi_layers, strict=True)):
            indices = (levels == level).nonzero().squeeze(1)
            if indices.numel():
                # MMCV's RoIAlign takes any memory for rows of one channel after the other.
                pooled[indices] = layer(feat.float().contiguous(), rois[indices])
        return pooled
