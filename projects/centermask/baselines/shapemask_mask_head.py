"""What ShapeMask's coarse and fine masks have in common: convs of the features to which a first mask is added."""

from __future__ import annotations

from collections import OrderedDict

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, bias_init_with_prob, normal_init, xavier_init
from torch import Tensor, nn


def conv_norm_relu(channels: int, norm_cfg: dict) -> nn.Sequential:
    """Return a 3×3 conv with a bias, like the release's; MMCV's ``ConvModule`` warns of it before a norm."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    norm = build_norm_layer(norm_cfg, channels)[1]
    return nn.Sequential(OrderedDict(conv=conv, bn=norm, relu=nn.ReLU(inplace=True)))


class ShapeMaskHead(BaseModule):
    """Convs of features and a first mask, and the 1×1 conv that predicts a mask of each class.

    Args:
        num_masks: 1, or the number of classes with the background.
        channels: of the features.
        num_convs: 3×3 convs with norm and ReLU.
        norm_cfg: config of the norm.
    """

    def __init__(self, num_masks: int, channels: int, num_convs: int, norm_cfg: dict) -> None:
        super().__init__()
        self.prior = nn.Linear(1, channels)
        self.convs = nn.Sequential(*(conv_norm_relu(channels, norm_cfg) for _ in range(num_convs)))
        self.logits = nn.Conv2d(channels, num_masks, 1)

    def init_weights(self) -> None:
        """Draw the weights; every pixel begins as background."""
        super().init_weights()
        xavier_init(self.prior, distribution='uniform')
        for module in self.convs:
            normal_init(module.conv, std=0.01)
        normal_init(self.logits, std=0.01, bias=bias_init_with_prob(0.01))

    def features_of_mask(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return features (N, C, 32, 32) of features of the same shape and a first mask (N, 32, 32)."""
        return self.convs(features + self.prior(mask[..., None]).movedim(3, 1))

    def weights_of_masks(self, channel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the 1×1 conv's weights (N, C) and biases (N,) of the masks ``channel`` (N,)."""
        assert self.logits.bias is not None
        return self.logits.weight[channel].flatten(1), self.logits.bias[channel]
