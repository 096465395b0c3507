"""Random numbers by what they are for."""

import random
from types import SimpleNamespace

import numpy as np
import torch

from centermask.engine.randomness import IterationSeedHook, seed_all


def _draw() -> tuple:
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_same_numbers_for_the_same_key() -> None:
    drawn = []
    for key in [(0, 1, 2), (0, 1, 2), (0, 2, 1), (1, 1, 2)]:
        seed_all(*key)
        drawn.append(_draw())
    assert drawn[0] == drawn[1]
    for numbers in zip(*drawn[1:], strict=True):  # of each library
        assert len(set(numbers)) == 3


def test_each_iteration_and_process_has_its_own() -> None:
    drawn = []
    for rank, iteration in [(0, 7), (0, 8), (1, 7), (0, 7)]:
        IterationSeedHook().before_train_iter(SimpleNamespace(seed=3, rank=rank, iter=iteration), iteration)
        drawn.append(_draw())
    assert drawn[0] == drawn[3] and len(set(drawn)) == 3
