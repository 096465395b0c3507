"""The smoothed GIoU loss against plain arithmetic."""

import numpy as np
import pytest
import torch

from centermask import SmoothedGIoULoss


def _loss(pred: np.ndarray, target: np.ndarray, enclosing_eps: float = 0.0) -> np.ndarray:
    """Return 1 − GIoU of each pair of boxes around the origin, computed from corners."""
    losses = []
    for p, t in zip(pred, target, strict=True):
        width = min(p[2], t[2]) + min(p[0], t[0])
        height = min(p[3], t[3]) + min(p[1], t[1])
        intersection = width * height
        union = (p[0] + p[2]) * (p[1] + p[3]) + (t[0] + t[2]) * (t[1] + t[3]) - intersection
        hull = (max(p[2], t[2]) + max(p[0], t[0])) * (max(p[3], t[3]) + max(p[1], t[1])) + enclosing_eps
        losses.append(1 - ((intersection + 1) / (union + 1) - (hull - union) / hull))
    return np.array(losses)


PRED = np.random.default_rng(0).uniform(0, 5, (6, 4))
TARGET = np.random.default_rng(1).uniform(0, 5, (6, 4))


def _call(
    loss: SmoothedGIoULoss, pred: np.ndarray, target: np.ndarray, weight: np.ndarray | None, factor: float
) -> float:
    weights = None if weight is None else torch.from_numpy(weight)
    return loss(torch.from_numpy(pred), torch.from_numpy(target), weights, torch.tensor(factor)).item()


@pytest.mark.parametrize('enclosing_eps', [0.0, 0.1])
def test_plain_arithmetic(enclosing_eps: float) -> None:
    weight = np.linspace(0, 1, 6)
    expected = 2 * (weight * _loss(PRED, TARGET, enclosing_eps)).sum() / 3
    loss = SmoothedGIoULoss(enclosing_eps=enclosing_eps, loss_weight=2.0)
    assert _call(loss, PRED, TARGET, weight, 3.0) == pytest.approx(expected)


def test_no_weights() -> None:
    assert _call(SmoothedGIoULoss(), PRED, TARGET, None, 4.0) == pytest.approx(_loss(PRED, TARGET).sum() / 4)


def test_unit_of_the_boxes_matters() -> None:
    """A box of 2×2 in one of 4×4 has a smoothed IoU of 5/17 in strides and 257/1025 in pixels at stride 8."""
    small, large = np.full((1, 4), 1.0), np.full((1, 4), 2.0)
    assert _call(SmoothedGIoULoss(), small, large, None, 1.0) == pytest.approx(1 - 5 / 17)
    assert _call(SmoothedGIoULoss(), 8 * small, 8 * large, None, 1.0) == pytest.approx(1 - 257 / 1025)


def test_perfect_box() -> None:
    assert _call(SmoothedGIoULoss(), TARGET, TARGET, None, 1.0) == pytest.approx(0, abs=1e-12)


def test_box_without_area_learns() -> None:
    pred = torch.tensor([[1.0, 0, 1, 0]], requires_grad=True)
    SmoothedGIoULoss()(pred, torch.ones(1, 4), None, torch.tensor(1.0)).backward()
    assert torch.isfinite(pred.grad).all()
    assert (pred.grad < 0).any()
