"""Losses as both releases compute them: smoothed GIoU, and averages over the objects of several processes."""

from __future__ import annotations

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor, nn


@MODELS.register_module()
class SmoothedGIoULoss(nn.Module):
    """1 − GIoU, whose IoU is (intersection + 1) / (union + 1).

    The 1 is in the unit of the boxes: negligible in pixels (paper recipe), a good part of small areas where boxes are
    in strides (star recipe).

    Args:
        enclosing_eps: added to the area of the enclosing box (1e-7 in the paper recipe).
        loss_weight: factor of the loss.
    """

    def __init__(self, enclosing_eps: float = 0.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.enclosing_eps = enclosing_eps
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None, avg_factor: Tensor) -> Tensor:
        """Return the loss, a scalar: the sum over boxes times ``weight``, divided by ``avg_factor``.

        Args:
            pred, target: left, top, right, bottom distances from one location to the sides of a box, shape (N, 4).
            weight: shape (N,), or None for ones.
            avg_factor: a scalar.
        """
        pred_area = (pred[:, 0] + pred[:, 2]) * (pred[:, 1] + pred[:, 3])
        target_area = (target[:, 0] + target[:, 2]) * (target[:, 1] + target[:, 3])
        smaller, larger = torch.min(pred, target), torch.max(pred, target)
        intersection = (smaller[:, 0] + smaller[:, 2]) * (smaller[:, 1] + smaller[:, 3])
        enclosing = (larger[:, 0] + larger[:, 2]) * (larger[:, 1] + larger[:, 3]) + self.enclosing_eps
        union = pred_area + target_area - intersection
        giou = (intersection + 1) / (union + 1) - (enclosing - union) / enclosing
        return self.loss_weight * weight_reduce_loss(1 - giou, weight, avg_factor=avg_factor)


def clamp_avg_factor(mean_count: Tensor) -> Tensor:
    """Return an ``avg_factor`` of at least one object of all processes together.

    The second release divides by at least one object *a process*. With fewer objects than processes in a batch, its
    gradients depend on the number of processes.

    Args:
        mean_count: objects a process, averaged over the processes, a scalar.
    """
    return mean_count.clamp(min=1 / get_world_size())


def weight_of_local_mean(local_count: int | Tensor, like: Tensor) -> Tensor:
    """Return the factor, a scalar, that turns this process's mean loss into its part of the mean over all processes.

    Every process has to call it, also one without items. The factors average to 1, so DDP's mean of the processes'
    gradients equals the gradient of one process with all images.

    Args:
        local_count: items of this process.
        like: a tensor on the device of this process.
    """
    # Half precision can't count to 257. A number is added, since the host would wait for a GPU to copy it.
    count = torch.zeros((), dtype=torch.float32, device=like.device) + local_count
    return count / clamp_avg_factor(reduce_mean(count))
