"""TensorMask's class loss by its equation."""

import math

import pytest
import torch

from centermask import FocalLossStar


def test_equation() -> None:
    """Each logit by hand: of the object's class, of another, of a window without object."""
    logits = torch.tensor([[2.0, -1.0], [0.5, 30.0], [-40.0, 0.0]])
    expected = 0.0
    for row, label in zip(logits.tolist(), (0, 1, 2), strict=True):
        for i, x in enumerate(row):
            sign, weight = (1, 0.3) if i == label else (-1, 0.7)
            expected += weight * math.log1p(math.exp(-3 * sign * x)) / 3
    loss = FocalLossStar(gamma=3.0, alpha=0.3, loss_weight=2.0)(logits, torch.tensor([0, 1, 2]), avg_factor=5)
    assert loss.item() == pytest.approx(2 * expected / 5, rel=1e-6)


def test_gradient() -> None:
    """Below the sigmoid of gamma · x: minus 1 for the class of the object."""
    logits = torch.tensor([[1.0, -0.2]], requires_grad=True)
    FocalLossStar()(logits, torch.tensor([1]), avg_factor=1).backward()
    expected = torch.stack([0.7 * torch.tensor(3.0).sigmoid(), 0.3 * (torch.tensor(-0.6).sigmoid() - 1)])
    torch.testing.assert_close(logits.grad[0], expected)
