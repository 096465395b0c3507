"""MobileNetV2 without its last conv: its features, and the tensors of the releases."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from centermask import MobileNetV2Features


def test_features() -> None:
    """32, 96 and 320 channels at strides 8, 16 and 32."""
    with torch.device('meta'):
        model = MobileNetV2Features()
        features = model(torch.zeros(2, 3, 64, 96))
    assert [tuple(feature.shape) for feature in features] == [(2, 32, 8, 12), (2, 96, 4, 6), (2, 320, 2, 3)]


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = MobileNetV2Features(norm_eval=True).train()
    sum(feature.square().mean() for feature in model(torch.randn(1, 3, 64, 64))).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    assert not any(part.training for part in model.modules() if isinstance(part, nn.BatchNorm2d))


@pytest.mark.parametrize(
    'name, prefix', [('star/lite_MobileNetV2', 'backbone.bottom_up.'), ('paper/MobileNetV2', 'backbone.body.')]
)
def test_has_the_tensors_of_the_releases(shared: Path, name: str, prefix: str) -> None:
    released = json.loads((shared / f'parity/{name}.keys.json').read_text())
    expected = Counter(tuple(shape) for key, shape in released.items() if key.startswith(prefix))
    with torch.device('meta'):
        state = MobileNetV2Features().state_dict()
    assert expected.total() == 5 * 51  # 51 convs, each with a BN of four tensors
    assert expected == Counter(tuple(t.shape) for key, t in state.items() if not key.endswith('num_batches_tracked'))
