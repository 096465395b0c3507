"""Synthetic weights and priors of ShapeMask, under the keys of its numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from parity.synthetic import synthetic_weight


def key_of(name: str) -> str:
    """Return the key, in the numbers' files, of a parameter or buffer of our ShapeMask."""
    name = re.sub(r'^roi_head\.(prior|coarse|fine)_head\.', r'mask_head.\1_', name)
    return re.sub(r'^roi_head\.', 'mask_head.', name)


def shapemask_weight(key: str, shape: Sequence[int]) -> np.ndarray:
    """Return the synthetic tensor of a key.

    Four kinds of keys differ from :func:`synthetic_weight`: pixels of this model are near 1, not 255, and untrained
    boxes would be far off.
    """
    weight = synthetic_weight(key, shape)
    if key == 'backbone.conv1.weight':
        return weight * np.float32(64)
    if re.fullmatch(r'neck\.norms\..*\.weight', key):
        return weight * np.float32(0.1)
    if key == 'bbox_head.retina_reg.weight':
        return weight * np.float32(0.2)
    if key == 'bbox_head.retina_cls.bias':
        return weight - np.float32(7)
    return weight


def load_shapemask_weights(module: nn.Module, prefix: str = '') -> None:
    """Fill a ShapeMask, or a part of it whose names begin with ``prefix``, with synthetic weights; priors stay."""
    for name, value in module.state_dict(prefix=prefix).items():
        if not name.endswith('prior_head.priors'):
            weight = shapemask_weight(key_of(name), value.shape)
            value.copy_(torch.from_numpy(weight))


def made_priors(classes: int, modes: int, size: int = 32) -> np.ndarray:
    """Return soft ellipses, multiples of 1/255, shape (classes, modes, size, size)."""
    across = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = np.meshgrid(across, across, indexing='ij')
    priors = np.zeros((classes, modes, size, size), np.float32)
    for label, mode in np.ndindex(classes, modes):
        generator = np.random.default_rng(1000 * label + mode)
        centre_x, centre_y = generator.uniform(-0.3, 0.3, 2)
        radius_x, radius_y = generator.uniform(0.4, 1.0, 2)
        angle = generator.uniform(0, np.pi)
        along = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)
        beside = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)
        distance = np.hypot(along / radius_x, beside / radius_y)
        priors[label, mode] = np.round(255 / (1 + np.exp(8 * (distance - 1)))) / 255
    return priors
