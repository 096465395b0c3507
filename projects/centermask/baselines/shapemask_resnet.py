"""ShapeMask's backbone: a ResNet whose first convs are frozen while all its BN learns."""

from __future__ import annotations

from mmdet.models.backbones import ResNet
from mmdet.models.layers.transformer.utils import AdaptivePadding
from mmdet.registry import MODELS
from torch import nn


@MODELS.register_module()
class ShapeMaskResNet(ResNet):
    """ResNet as ShapeMask's release trains it.

    MMDetection freezes the BN of frozen stages too.

    Args:
        same_padding: whether the max-pool pads as in TensorFlow, an even side by 0 before and 1 after, for weights that
            were trained so. PyTorch's ImageNet weights were trained with 1 before and 1 after. The other strided convs
            pad alike in both.
        **kwargs: other arguments of :class:`mmdet.models.ResNet`. ``frozen_stages`` freezes the convs of the stem and
            of that many stages.
    """

    def __init__(self, same_padding: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        if same_padding:  # by zeros, which change no maximum after ReLU
            self.maxpool = nn.Sequential(AdaptivePadding(3, stride=2, padding='same'), nn.MaxPool2d(3, stride=2))

    def _freeze_stages(self) -> None:
        """Freeze the convs of the stem and of ``frozen_stages`` stages."""
        frozen = [self.conv1, *(getattr(self, name) for name in self.res_layers[: max(self.frozen_stages, 0)])]
        for part in frozen if self.frozen_stages >= 0 else ():
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.requires_grad_(False)
