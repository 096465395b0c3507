"""ShapeMask's coarse mask: the shape prior, corrected by the features of the outer box."""

from __future__ import annotations

import torch
from torch import Tensor

from .shapemask_mask_head import ShapeMaskHead


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
