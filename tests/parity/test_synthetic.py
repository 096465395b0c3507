"""Synthetic weights have the same bits as those of the published function."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from parity.synthetic import fingerprint, synthetic_weight, synthetic_weights


@pytest.fixture(scope='module')
def published(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location('synthetic_weights', shared / 'parity/synthetic_weights.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('model', ['star/lite_V_19_slim_dw', 'paper/lite_V_19'])
def test_bits_of_every_key(shared: Path, published: ModuleType, model: str) -> None:
    shapes = json.loads((shared / f'parity/{model}.keys.json').read_text())
    assert len(shapes) > 100
    for key, shape in shapes.items():
        found, expected = synthetic_weight(key, shape), published.synthetic_tensor(key, tuple(shape))
        assert found.dtype == expected.dtype and np.array_equal(found, expected), key


@pytest.mark.parametrize(
    ('key', 'shape'), [('stem.num_batches_tracked', ()), ('a.running_var', (7,)), ('a.scale', (1,)), ('b', (4, 3, 2))]
)
def test_bits_of_other_keys(published: ModuleType, key: str, shape: tuple[int, ...]) -> None:
    found, expected = synthetic_weight(key, shape), published.synthetic_tensor(key, shape)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


@pytest.mark.parametrize('shape', [(5,), (8, 2, 14, 14), (50, 1, 28, 28)])
def test_bits_of_fingerprints(published: ModuleType, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    found, expected = fingerprint(array), published.fingerprint(array)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_fingerprint() -> None:
    assert fingerprint(np.full((3, 4), 2.5)).tolist() == [2.5, 0] + [2.5] * 256
    assert fingerprint(np.zeros((0, 1, 28, 28))).shape == (0,)


def test_scales() -> None:
    """Features keep their scale, images are scaled down, variances are above 0."""
    assert synthetic_weight('a.weight', (64, 32, 3, 3)).std() == pytest.approx((2 / 288) ** 0.5, rel=0.02)
    assert synthetic_weight('a.weight', (64, 3, 7, 7)).std() == pytest.approx((2 / 147) ** 0.5 / 64, rel=0.02)
    assert synthetic_weight('a.conv3.weight', (64, 64, 1, 1)).std() == pytest.approx((2 / 64) ** 0.5 / 5, rel=0.05)
    assert synthetic_weight('a.running_var', (1000,)).min() >= 0.75
    assert synthetic_weight('a.cls_logits.bias', (1000,)).mean() == pytest.approx(-2, abs=0.02)
    assert synthetic_weight('a.norm.weight', (1000,)).mean() == pytest.approx(1, abs=0.02)


def test_weights_have_the_keys_and_shapes() -> None:
    released = {'a.weight': torch.zeros(2, 3), 'b.bias': torch.zeros(4)}
    weights = synthetic_weights(released)
    assert {key: value.shape for key, value in weights.items()} == {key: v.shape for key, v in released.items()}
    assert not torch.equal(weights['b.bias'], synthetic_weights({'c.bias': torch.zeros(4)})['c.bias'])
