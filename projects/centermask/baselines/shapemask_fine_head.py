"""ShapeMask's fine mask: the coarse mask, refined by how the object's pixels differ from their mean."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from .shapemask_coarse_head import INITIAL_LOGIT, conv_tower, init_convs


def instance_embedding(features: Tensor, coarse: Tensor) -> Tensor:
    """Return the mean features of each object's coarse mask, (N, C); 0 where the mask is empty.

    The mask is hard, so no gradient reaches it.

    Args:
        features: shape (N, C, 32, 32).
        coarse: logits, shape (N, 32, 32).
    """
    mask = (coarse > 0).to(features.dtype)[:, None]
    return (features * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)


class FineMaskHead(BaseModule):
    """Logits of a mask of 128×128 cells from the features and the coarse mask.

    Args:
        num_masks: 1, or the number of classes with the background.
        channels: of the features.
        num_convs: 3×3 convs.
        norm_cfg: config of their norm.
        scale: cells of the fine mask along a cell of the coarse one.
    """

    def __init__(self, num_masks: int, channels: int, num_convs: int, norm_cfg: dict, scale: int = 4) -> None:
        super().__init__()
        self.prior = nn.Linear(1, channels)
        self.convs = conv_tower(num_convs, channels, norm_cfg)
        self.upsample = nn.ConvTranspose2d(channels, channels, scale, stride=scale)
        self.logits = nn.Conv2d(channels, num_masks, 1)

    def init_weights(self) -> None:
        """Draw the weights; every pixel begins as background."""
        super().init_weights()
        init_convs(self)
        for layer in (self.prior, self.upsample):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.logits.bias, INITIAL_LOGIT)

    def forward(self, features: Tensor, coarse: Tensor, channel: Tensor) -> Tensor:
        """Return logits (N, 128, 128).

        Args:
            features: shape (N, C, 32, 32).
            coarse: logits, shape (N, 32, 32).
            channel: which of the masks each object takes, shape (N,).
        """
        embedding = instance_embedding(features, coarse)[..., None, None]
        x = features - embedding + self.prior(coarse.sigmoid()[..., None]).permute(0, 3, 1, 2)
        return self.upsampled_logits(self.convs(x), channel)

    def upsampled_logits(self, x: Tensor, channel: Tensor) -> Tensor:
        """Return the logits of each object's mask, (N, 128, 128), from features (N, C, 32, 32).

        The deconv and the 1×1 conv after it are linear. As one product they need no features of 128×128 cells, which
        would take 8 MB an object.
        """
        weight, bias = self.logits.weight[channel, :, 0, 0], self.logits.bias[channel]  # (N, C), (N,)
        kernels = torch.einsum('ioyx,no->niyx', self.upsample.weight, weight)  # (N, C, 4, 4)
        cells = torch.einsum('nihw,niyx->nhywx', x, kernels)  # (N, 32, 4, 32, 4)
        return cells.flatten(3).flatten(1, 2) + (weight @ self.upsample.bias + bias)[:, None, None]
