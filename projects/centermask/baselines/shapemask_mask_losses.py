"""ShapeMask's losses of its three masks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def prior_loss(prior: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Return half the squared error of valid objects' masks, divided by all targets' foreground pixels, a scalar.

    Args:
        prior: the shape priors, shape (N, 32, 32).
        targets: 0 or 1, of the same shape.
        valid: whether each object counts, shape (N,).
    """
    error = (prior - targets).square() * valid[:, None, None]
    return 0.5 * error.sum() / targets.sum().clamp(min=1)


def mask_loss(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Return the binary cross entropy of valid objects' masks, divided by all targets' foreground pixels, a scalar.

    Args:
        logits: shape (N, size, size).
        targets: 0 or 1, of the same shape.
        valid: whether each object counts, shape (N,).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction='none') * valid[:, None, None]
    return entropy.sum() / targets.sum().clamp(min=1)
