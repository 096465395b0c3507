"""Losses of several processes that add up to the loss of all their images."""

from __future__ import annotations

import torch
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor


def clamp_avg_factor(mean_count: Tensor) -> Tensor:
    """Keep a loss from being divided by less than one object of all processes together.

    The second release divides by at least one object *a process*: where fewer objects than processes are in a batch,
    its gradients depend on how many processes share the images.

    Args:
        mean_count: objects a process, averaged over the processes, a scalar.
    """
    return mean_count.clamp(min=1 / get_world_size())


def weight_among_processes(own_count: int, like: Tensor) -> Tensor:
    """Return a scalar that turns this process's mean over its items into its part of the mean over those of all.

    Every process has to call it, also one without items. The weights average to 1, so DDP's mean of the processes'
    gradients becomes that of one process with all images.

    Args:
        own_count: items of this process.
        like: a tensor on the device that the processes exchange from.
    """
    count = like.new_tensor(own_count, dtype=torch.float32)  # half precision can't count to 257
    return count / clamp_avg_factor(reduce_mean(count))
