"""ShapeMask's fine mask: the coarse mask, refined by how the object's pixels differ from their mean."""

from __future__ import annotations

import torch
from mmengine.model import xavier_init
from torch import Tensor, nn

from .shapemask_mask_head import ShapeMaskHead


def instance_embedding(features: Tensor, coarse: Tensor) -> Tensor:
    """Return the mean features of each object's coarse mask, (N, C); 0 where the mask is empty.

    The mask is hard, so no gradient reaches it.

    Args:
        features: shape (N, C, 32, 32).
        coarse: logits, shape (N, 32, 32).
    """
    mask = (coarse > 0).to(features.dtype)[:, None]
    return (features * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)


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
