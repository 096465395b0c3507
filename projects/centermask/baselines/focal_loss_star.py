"""The focal loss of TensorMask: *FL\\** of the paper on focal loss (its appendix A)."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class FocalLossStar(nn.Module):
    """-alpha_t · log sigmoid(gamma · s · x) / gamma of a logit x; s is 1 for the object's class, -1 for the others.

    Args:
        gamma: how much steeper the sigmoid is than that of the logit.
        alpha: alpha_t of the object's class, in [0, 1]; that of the others is 1 - ``alpha``.
        loss_weight: factor of the loss.
    """

    def __init__(self, gamma: float = 3.0, alpha: float = 0.3, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, avg_factor: float) -> Tensor:
        """Return the loss, a scalar: the sum over windows and classes, divided by ``avg_factor``.

        Args:
            pred: logits, shape (M, K).
            target: classes, shape (M,); K stands for the background.
            avg_factor: a number above 0.
        """
        # softplus(x, gamma) is log(1 + exp(gamma · x)) / gamma.
        losses = (1 - self.alpha) * F.softplus(pred, self.gamma)
        positive = (target < pred.shape[1]).nonzero().squeeze(1)
        classes = target[positive]
        losses[positive, classes] = self.alpha * F.softplus(-pred[positive, classes], self.gamma)
        return self.loss_weight * losses.sum() / avg_factor
