"""MobileNetV2 (paper, Table 3), the backbone of the smallest released models."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.backbones import MobileNetV2
from mmdet.registry import MODELS


@MODELS.register_module()
class MobileNetV2Features(MobileNetV2):
    """MobileNetV2 up to its last block, as the releases use it.

    MMDetection's backbone ends with the 1×1 conv of 1280 channels before the classifier, which no pyramid reads.

    Args:
        out_indices: which of the seven groups of blocks (counted from 0) are returned; by default those of 32, 96 and
            320 channels, strides 8, 16 and 32.
        **kwargs: other arguments of :class:`mmdet.models.MobileNetV2`.
    """

    def __init__(self, out_indices: Sequence[int] = (2, 4, 6), **kwargs) -> None:
        super().__init__(out_indices=out_indices, **kwargs)
        del self.conv2
        self.layers.remove('conv2')

    def train(self, mode: bool = True) -> MobileNetV2Features:
        """Set training or evaluation mode and return the model; MMDetection's method returns None."""
        super().train(mode)
        return self
