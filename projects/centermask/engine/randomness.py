"""Random numbers as a function of what they are for, so that a training that resumes draws those of one that didn't.

MMEngine seeds once and then draws on: what a training draws at an iteration depends on all that was drawn before, in
every worker. Here each image and each iteration have a seed of their own, and no state has to be saved.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner


def seed_all(*key: int) -> None:
    """Seed Python, NumPy and torch (with its GPUs) by some numbers, none of them negative."""
    torch.manual_seed(_seed_host(key))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed Python, NumPy and torch on the CPU within the block; outside they go on as if it hadn't been."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    torch.default_generator.manual_seed(_seed_host(key))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _seed_host(key: tuple[int, ...]) -> int:
    """Seed Python and NumPy, and return a seed for torch."""
    numbers = np.random.SeedSequence(key).generate_state(8)
    random.seed(numbers[:3].tobytes())
    np.random.seed(numbers[3:6])
    return int(numbers[6]) << 32 | int(numbers[7])


class IterationSeedHook(Hook):
    """Seeds each iteration by the run's seed, the process and the iteration: for the sampling of RoIs, and dropout."""

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        seed_all(*iteration_key(runner))


def iteration_key(runner: Runner) -> tuple[int, int, int]:
    """What seeds the iteration that a runner is at."""
    return runner.seed, runner.rank, runner.iter
