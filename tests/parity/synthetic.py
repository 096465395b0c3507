"""Synthetic weights: each tensor is a function of its released key and its shape alone.

Two implementations with the same keys get the same weights without a file, so their outputs for the same image can be
compared. A tensor is drawn from NumPy's default generator, seeded with the CRC-32 of its key, and scaled so that
features keep their size through the layers. The published expected numbers depend on these exact values.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

PICKS = 256


def synthetic_weight(key: str, shape: Sequence[int]) -> np.ndarray:
    """Return the synthetic tensor of a released key: float32, or int64 zeros for a batch counter."""
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(shape), dtype=np.float32)
    tenth = np.float32(0.1) * noise
    if key.endswith('running_var'):
        return np.float32(0.75) + np.float32(0.25) * np.abs(noise)
    if key.endswith('cls_logits.bias'):
        return tenth - np.float32(2)
    if key.endswith(('running_mean', 'bias')):
        return tenth
    if len(shape) < 2:  # a norm's weight, or the scale of a level
        return tenth + np.float32(1)
    gain = math.sqrt(2 / math.prod(shape[1:]))
    if shape[1] == 3:  # images reach 255
        gain /= 64
    elif key.endswith('conv3.weight'):  # the last of a ResNet's block, whose result is added
        gain /= 5
    return noise * np.float32(gain)


def synthetic_weights(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return synthetic weights with the keys and shapes of ``released``."""
    return {key: torch.from_numpy(synthetic_weight(key, value.shape)) for key, value in released.items()}


def fingerprint(array: np.ndarray) -> np.ndarray:
    """Return mean, standard deviation and 256 values of an array, shape (258,), float32.

    The indices of the values depend on the array's size alone. The fingerprint of an empty array is empty.
    """
    values = np.asarray(array, np.float64).ravel()
    if not len(values):
        return np.zeros(0, np.float32)
    picked = values[np.random.default_rng(len(values)).integers(0, len(values), PICKS)]
    return np.array([values.mean(), values.std(), *picked], np.float32)
