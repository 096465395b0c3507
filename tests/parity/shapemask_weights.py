"""ShapeMask's synthetic weights, priors, and the names of its numbers' weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from parity.synthetic import synthetic_weight


def shapemask_weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the synthetic tensor of a key of the numbers: the kit's, but for four kinds of key."""
    value = synthetic_weight(key, shape)
    if key == 'backbone.conv1.weight':
        return value * np.float32(64)
    if re.fullmatch(r'neck\.norms\.\d\.weight', key):
        return value * np.float32(0.1)
    if key == 'bbox_head.retina_reg.weight':
        return value * np.float32(0.2)
    if key == 'bbox_head.retina_cls.bias':
        return value - np.float32(7)
    return value


def key_of(name: str) -> str:
    """Return the key that the numbers have for a tensor of :class:`ShapeMask`."""
    return re.sub(r'^roi_head\.', 'mask_head.', re.sub(r'\b(prior|coarse|fine)_head\.', r'\1_', name))


def load_synthetic_weights(model: nn.Module, priors: np.ndarray, prefix: str = '') -> None:
    """Give a part of :class:`ShapeMask` synthetic weights, and its prior head these priors (C, K, 32, 32).

    Args:
        model: the detector, or a part of it.
        priors: the shapes.
        prefix: of the part's names in the detector.
    """
    for name, tensor in model.state_dict().items():
        if name.endswith('prior_head.priors'):
            value = priors
        else:
            value = shapemask_weight(key_of(prefix + name), tuple(tensor.shape))
        tensor.copy_(torch.from_numpy(value))


def by_key(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of :class:`ShapeMask` under the keys of the numbers."""
    return {key_of(name): tensor for name, tensor in tensors.items()}


def made_priors(classes: int, modes: int, size: int = 32) -> np.ndarray:
    """Return soft ellipses, float32, multiples of 1/255, shape (classes, modes, size, size)."""
    y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size * 2 - 1] * 2, indexing='ij')
    priors = np.zeros((classes, modes, size, size), np.float32)
    for label, mode in np.ndindex(classes, modes):
        random = np.random.default_rng(1000 * label + mode)
        left, top = random.uniform(-0.3, 0.3, 2)
        radii = random.uniform(0.4, 1.0, 2)
        cos, sin = np.cos(angle := random.uniform(0, np.pi)), np.sin(angle)
        along, beside = (x - left) * cos + (y - top) * sin, (y - top) * cos - (x - left) * sin
        distance = np.sqrt((along / radii[0]) ** 2 + (beside / radii[1]) ** 2)
        priors[label, mode] = np.round(255 / (1 + np.exp(8 * (distance - 1)))) / 255
    return priors
