"""Seeds as a function of what they are for, so that a resumed training draws the same random numbers.

MMEngine seeds once: what a training draws then depends on all that was drawn before, in every worker. Here each image
and each iteration has a seed of its own, and no generator's state has to be saved.
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
    """Seed Python, NumPy and torch (with its GPUs) by non-negative integers."""
    torch.manual_seed(_seed_host(key))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed Python, NumPy and torch on the CPU within the block; afterwards their generators are as before."""
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
    words = np.random.SeedSequence(key).generate_state(8)
    random.seed(words[:3].tobytes())
    np.random.seed(words[3:6])
    return int(words[6]) << 32 | int(words[7])


class IterationSeedHook(Hook):
    """Seeds each iteration by the run's seed, the process and the iteration: for the sampling of RoIs, and dropout."""

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        seed_all(runner.seed, runner.rank, runner.iter)
