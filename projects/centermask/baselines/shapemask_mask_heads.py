"""ShapeMask's coarse mask, the shape prior corrected by the features, and the fine mask that refines it."""

from __future__ import annotations

from collections import OrderedDict

import torch
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
        return self.convs(features + self.prior(mask[..., None].to(self.prior.weight.dtype)).movedim(3, 1))

    def weights_of_masks(self, channel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the 1×1 conv's weights (N, C) and biases (N,) of the masks ``channel`` (N,)."""
        assert self.logits.bias is not None
        return self.logits.weight[channel].flatten(1), self.logits.bias[channel]


class CoarseMaskHead(ShapeMaskHead):
    """Logits of a mask of 32×32 cells from the features and the shape prior."""

    def forward(self, features: Tensor, prior: Tensor, channel: Tensor) -> Tensor:
        """Return logits (N, 32, 32).

        Args:
            features: shape (N, C, 32, 32).
            prior: the shape prior, shape (N, 32, 32).
            channel: which of the masks each object takes, shape (N,).
        """
        weight, bias = self.weights_of_masks(channel)
        return torch.einsum('nchw,nc->nhw', self.features_of_mask(features, prior), weight) + bias[:, None, None]


class FineMaskHead(ShapeMaskHead):
    """Logits of a mask of 128×128 cells from the features and the coarse mask.

    Args:
        num_masks, channels, num_convs, norm_cfg: as in :class:`ShapeMaskHead`.
        scale: cells of the fine mask along a cell of the coarse one.
    """

    def __init__(self, num_masks: int, channels: int, num_convs: int, norm_cfg: dict, scale: int = 4) -> None:
        super().__init__(num_masks, channels, num_convs, norm_cfg)
        self.upsample = nn.ConvTranspose2d(channels, channels, scale, stride=scale)

    def init_weights(self) -> None:
        """Draw the weights."""
        super().init_weights()
        xavier_init(self.upsample, distribution='uniform')

    def forward(self, features: Tensor, coarse: Tensor, channel: Tensor) -> Tensor:
        """Return logits (N, 128, 128).

        Args:
            features: shape (N, C, 32, 32).
            coarse: logits, shape (N, 32, 32).
            channel: which of the masks each object takes, shape (N,).
        """
        centred = features - instance_embedding(features, coarse)[..., None, None]
        return self.upsampled_logits(self.features_of_mask(centred, coarse.sigmoid()), channel)

    def upsampled_logits(self, x: Tensor, channel: Tensor) -> Tensor:
        """Return the logits of each object's mask, (N, 128, 128), from features (N, C, 32, 32).

        The deconv and the 1×1 conv after it are linear. As one product they need no features of 128×128 cells, which
        would take 8 MB an object.
        """
        assert self.upsample.bias is not None
        weight, bias = self.weights_of_masks(channel)
        kernels = torch.einsum('ioyx,no->niyx', self.upsample.weight, weight)  # (N, C, 4, 4)
        cells = torch.einsum('nihw,niyx->nhywx', x, kernels)  # (N, 32, 4, 32, 4)
        return cells.flatten(3).flatten(1, 2) + (weight @ self.upsample.bias + bias)[:, None, None]


def instance_embedding(features: Tensor, coarse: Tensor) -> Tensor:
    """Return the mean features of each object's coarse mask, (N, C); 0 where the mask is empty.

    The mask is hard, so no gradient reaches it.

    Args:
        features: shape (N, C, 32, 32).
        coarse: logits, shape (N, 32, 32).
    """
    mask = (coarse > 0).to(features.dtype)[:, None]
    return (features * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)
