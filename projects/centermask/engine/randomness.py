"""Seeds as a function of what they are for, so that a resumed training draws the same random numbers.

MMEngine seeds once: what a training draws then depends on all that was drawn before, in every worker. Here each image
and each iteration has a seed of its own, and no generator's state has to be saved.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner


def seed_all(*key: int) -> None:
    """Seed Python, NumPy and torch (with its GPUs) by non-negative integers."""
    words = np.random.SeedSequence(key).generate_state(8)
    random.seed(words[:3].tobytes())
    np.random.seed(words[3:6])
    torch.manual_seed(int(words[6]) << 32 | int(words[7]))


class IterationSeedHook(Hook):
    """Seeds each iteration by the run's seed, the process and the iteration: for the sampling of RoIs, and dropout."""

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        seed_all(runner.seed, runner.rank, runner.iter)
