"""The box loss of RetinaMask (compared in Table 5): smooth L1 that turns linear where errors usually are."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

MIN_BETA = 0.001


@MODELS.register_module()
class SelfAdjustingSmoothL1Loss(nn.Module):
    """Smooth L1, 0.5 d² / β below β and d − 0.5 β from there on, whose β follows the errors d = |Δ| of training.

    β is, for each coordinate of a box, the running mean of d minus its running variance, kept in [0.001, ``beta``].
    Statistics are those of each process, move in training only, before the loss is computed, and are saved with the
    model. They start so that the loss begins as plain smooth L1 with ``beta``.

    Args:
        beta: greatest β.
        momentum: share of a running statistic that stays when a batch with at least two boxes adds its own.
        loss_weight: factor of the loss.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, beta: float = 0.11, momentum: float = 0.9, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.beta = beta
        self.momentum = momentum
        self.loss_weight = loss_weight
        self.register_buffer('running_mean', torch.full((4,), beta))
        self.register_buffer('running_var', torch.zeros(4))

    def forward(self, pred: Tensor, target: Tensor, avg_factor: float) -> Tensor:
        """Return the loss, a scalar: the sum over boxes and coordinates divided by ``avg_factor``.

        Args:
            pred, target: encoded boxes of all positives of a batch, shape (N, 4).
            avg_factor: a number above 0.
        """
        error = (pred - target).abs()
        if self.training and len(error) > 1:  # one box has no variance
            with torch.no_grad():
                self.running_mean.lerp_(error.mean(0), 1 - self.momentum)
                self.running_var.lerp_(error.var(0), 1 - self.momentum)
        beta = (self.running_mean - self.running_var).clamp(MIN_BETA, self.beta)
        loss = torch.where(error < beta, 0.5 * error.square() / beta, error - 0.5 * beta)
        return self.loss_weight * loss.sum() / avg_factor
