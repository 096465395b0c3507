"""The feature pyramid of TensorMask: it averages where a feature pyramid adds."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class AveragingFPN(FPN):
    """A feature pyramid that averages each lateral and the level above, with more levels by convs on the last input.

    Args:
        in_channels: of the inputs.
        out_channels: of every level.
        num_outs: number of levels; those beyond the inputs are strided convs, the first on the last input, each later
            one on the ReLU of the one before.
        init_cfg: Caffe2's Xavier by default, as in the release.
    """

    def __init__(
        self, in_channels: list[int], out_channels: int, num_outs: int, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            num_outs,
            add_extra_convs='on_input',
            relu_before_extra_convs=True,
            init_cfg=init_cfg or dict(type='Caffe2Xavier', layer='Conv2d'),
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the levels (N, C, H, W), of strides 4 to 128 for the four stages of a backbone."""
        merged = [conv(x) for conv, x in zip(self.lateral_convs, inputs, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            above = F.interpolate(merged[i], size=merged[i - 1].shape[-2:], mode='nearest')
            merged[i - 1] = (merged[i - 1] + above) / 2
        levels = [conv(x) for conv, x in zip(self.fpn_convs, merged, strict=False)]  # P2 to P5
        extra = inputs[-1]  # C5
        for conv in self.fpn_convs[len(merged) :]:  # P6, P7
            levels.append(conv(extra))
            extra = F.relu(levels[-1])
        return tuple(levels)
