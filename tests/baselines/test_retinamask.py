"""RetinaMask's box loss: its equation, the statistics that it keeps, and their saving."""

from pathlib import Path

import numpy as np
import pytest
import torch

from centermask import SelfAdjustingSmoothL1Loss

GENERATOR = np.random.default_rng(0)
# By coordinate: below 0.001, between, above 0.11, and a variance that exceeds the mean.
BATCHES = [GENERATOR.uniform(-1, 1, (n, 4)) * np.array([0.001, 0.1, 1, 0.1]) for n in (5, 2, 9)]
BATCHES[1][0, 3] = 8.0


def _run(loss: SelfAdjustingSmoothL1Loss, errors: np.ndarray, avg_factor: float = 1.0) -> float:
    target = torch.linspace(-1, 1, errors.size).reshape(errors.shape)
    return loss(target + torch.from_numpy(errors).float(), target, avg_factor=avg_factor).item()


def _expected(errors: np.ndarray, beta: np.ndarray) -> float:
    """Compute the loss box by box and coordinate by coordinate."""
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
    assert beta[2] == 0.11 and beta[3] == 0.001 and 0.001 < beta[0] < 0.11  # both limits and a value between


def test_momentum() -> None:
    loss = SelfAdjustingSmoothL1Loss(momentum=0.5)
    _run(loss, np.array([[0.3] * 4, [0.5] * 4]))
    torch.testing.assert_close(loss.running_mean, torch.full((4,), 0.5 * 0.11 + 0.5 * 0.4))
    torch.testing.assert_close(loss.running_var, torch.full((4,), 0.5 * 0.02))


def test_gradient() -> None:
    """The gradient is d / β below β and the sign of d above; the statistics have none."""
    loss = SelfAdjustingSmoothL1Loss().eval()
    pred = torch.tensor([[0.022, -0.055, 0.2, -0.3]], requires_grad=True)
    loss(pred, torch.zeros(1, 4), avg_factor=1).backward()
    torch.testing.assert_close(pred.grad, torch.tensor([[0.2, -0.5, 1.0, -1.0]]))
    pred = torch.randn(5, 4, requires_grad=True)
    loss.train()(pred, torch.zeros(5, 4), avg_factor=1).backward()
    assert pred.grad.isfinite().all() and not loss.running_mean.requires_grad


def test_statistics_do_not_change_in_evaluation() -> None:
    loss = SelfAdjustingSmoothL1Loss()
    _run(loss, BATCHES[0])
    before = loss.running_mean.clone(), loss.running_var.clone()
    _run(loss.eval(), BATCHES[2])
    assert torch.equal(before[0], loss.running_mean) and torch.equal(before[1], loss.running_var)


@pytest.mark.parametrize('boxes', [0, 1])
def test_few_boxes(boxes: int) -> None:
    """Fewer than two boxes change no statistics; without boxes the loss is 0, with a gradient."""
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
