"""RetinaMask's box loss: its equation, the statistics that it keeps, and their saving."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models.losses import SmoothL1Loss

from centermask import SelfAdjustingSmoothL1Loss

GENERATOR = np.random.default_rng(0)
# By coordinate: below 0.001, between, above 0.11, and a variance that exceeds the mean.
BATCHES = [GENERATOR.uniform(-1, 1, (n, 4)) * np.array([0.001, 0.1, 1, 0.1]) for n in (5, 2, 9)]
BATCHES[1][0, 3] = 8.0


def _run(loss: SelfAdjustingSmoothL1Loss, errors: np.ndarray, avg_factor: float = 1.0) -> float:
    target = torch.linspace(-1, 1, errors.size).reshape(errors.shape)
    return loss(target + torch.from_numpy(errors).float(), target, avg_factor=avg_factor).item()


def _expected(errors: np.ndarray, beta: np.ndarray) -> float:
    """Box by box and coordinate by coordinate."""
    total = 0.0
    for box in np.abs(errors):
        for error, limit in zip(box, beta, strict=True):
            total += 0.5 * error**2 / limit if error < limit else error - 0.5 * limit
    return total


def _statistics(batches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = np.full(4, 0.11), np.zeros(4)
    for errors in map(np.abs, batches):
        mean = 0.9 * mean + 0.1 * errors.mean(0)
        variance = 0.9 * variance + 0.1 * errors.var(0, ddof=1)
    return mean, variance


def test_equation() -> None:
    """β is the running mean minus the running variance, of this batch too, kept in [0.001, 0.11]."""
    loss = SelfAdjustingSmoothL1Loss(loss_weight=2.0)
    for count, errors in enumerate(BATCHES, 1):
        mean, variance = _statistics(BATCHES[:count])
        beta = np.clip(mean - variance, 0.001, 0.11)
        assert _run(loss, errors, avg_factor=3.0) == pytest.approx(2 * _expected(errors, beta) / 3, rel=1e-4)
        np.testing.assert_allclose(loss.running_mean.numpy(), mean, rtol=1e-3)
        np.testing.assert_allclose(loss.running_var.numpy(), variance, rtol=1e-3)
    assert beta[2] == 0.11 and beta[3] == 0.001 and 0.001 < beta[0] < 0.11  # both limits and the way between


@pytest.mark.parametrize('mean, variance, beta', [(0.05, 0.01, 0.04), (0.05, 0.2, 0.001), (0.9, 0.1, 0.11)])
def test_limits_of_beta(mean: float, variance: float, beta: float) -> None:
    loss = SelfAdjustingSmoothL1Loss().eval()
    loss.running_mean.fill_(mean)
    loss.running_var.fill_(variance)
    for error in (0.5 * beta, 2 * beta):
        errors = np.full((3, 4), error)
        assert _run(loss, errors) == pytest.approx(_expected(errors, np.full(4, beta)), rel=1e-4)


def test_starts_as_smooth_l1() -> None:
    pred, target = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    plain = SmoothL1Loss(beta=0.11, reduction='sum')(pred, target)
    torch.testing.assert_close(SelfAdjustingSmoothL1Loss().eval()(pred, target, avg_factor=1), plain)


def test_momentum() -> None:
    loss = SelfAdjustingSmoothL1Loss(momentum=0.5)
    _run(loss, np.array([[0.3] * 4, [0.5] * 4]))
    torch.testing.assert_close(loss.running_mean, torch.full((4,), 0.5 * 0.11 + 0.5 * 0.4))
    torch.testing.assert_close(loss.running_var, torch.full((4,), 0.5 * 0.02))


def test_gradient() -> None:
    """d / β below β and the sign of d above; the statistics get none."""
    loss = SelfAdjustingSmoothL1Loss().eval()
    pred = torch.tensor([[0.022, -0.055, 0.2, -0.3]], requires_grad=True)
    loss(pred, torch.zeros(1, 4), avg_factor=1).backward()
    torch.testing.assert_close(pred.grad, torch.tensor([[0.2, -0.5, 1.0, -1.0]]))
    pred = torch.randn(5, 4, requires_grad=True)
    loss.train()(pred, torch.zeros(5, 4), avg_factor=1).backward()
    assert pred.grad.isfinite().all() and not loss.running_mean.requires_grad


def test_statistics_stand_still_in_evaluation() -> None:
    loss = SelfAdjustingSmoothL1Loss()
    _run(loss, BATCHES[0])
    before = loss.running_mean.clone(), loss.running_var.clone()
    _run(loss.eval(), BATCHES[2])
    assert torch.equal(before[0], loss.running_mean) and torch.equal(before[1], loss.running_var)


@pytest.mark.parametrize('boxes', [0, 1])
def test_few_boxes(boxes: int) -> None:
    """Fewer than two have no variance and move nothing; of none the loss is 0, and what made it gets its gradient."""
    loss, pred = SelfAdjustingSmoothL1Loss(), torch.ones(3, 4, requires_grad=True)
    value = loss(pred[:boxes], torch.zeros(boxes, 4), avg_factor=1)
    value.backward()
    assert value.item() == pytest.approx(boxes * 4 * (1 - 0.055))
    assert pred.grad.abs().sum() == boxes * 4
    assert loss.running_mean.tolist() == pytest.approx([0.11] * 4) and not loss.running_var.any()


def test_statistics_are_saved(tmp_path: Path) -> None:
    loss = SelfAdjustingSmoothL1Loss()
    for errors in BATCHES:
        _run(loss, errors)
    torch.save(loss.state_dict(), tmp_path / 'loss.pth')
    other = SelfAdjustingSmoothL1Loss()
    other.load_state_dict(torch.load(tmp_path / 'loss.pth', weights_only=True))
    assert (
        _run(other.eval(), BATCHES[0])
        == _run(loss.eval(), BATCHES[0])
        != _run(SelfAdjustingSmoothL1Loss().eval(), BATCHES[0])
    )
