"""Steps that aren't finite are skipped."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from centermask.benchmark.counting import count
from centermask.engine import nonfinite
from centermask.engine.nonfinite import NonFiniteHook, SkipNonFinite
from centermask.utils.errors import RunError


class Model(nn.Module):
    """Its loss is finite for finite input; ``root`` makes only the gradient infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.fc = nn.Linear(2, 1)
        self.root = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, root: bool = False) -> Tensor:
        return self.fc(self.norm(x)).square().mean() + (self.root.sqrt().sum() if root else 0)


GOOD = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
BAD = torch.tensor([[1.0, 2.0], [torch.inf, 5.0]])
PLAIN, AMP = 'NonFiniteSafeOptimWrapper', 'NonFiniteSafeAmpOptimWrapper'


def _build(model: nn.Module, kind: str = PLAIN, **kwargs: object) -> SkipNonFinite:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return OPTIM_WRAPPERS.build(dict(type=kind, optimizer=optimizer, **kwargs))


def _step(model: nn.Module, wrapper: SkipNonFinite, x: Tensor, **kwargs: bool) -> None:
    with wrapper.optim_context(model):
        loss = model(x, **kwargs)
    wrapper.update_params(loss)


def _state(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize(('kind', 'clip'), [(PLAIN, None), (PLAIN, {'max_norm': 1.0}), (AMP, None)])
def test_a_loss_that_is_not_finite_changes_nothing(kind: str, clip: dict | None) -> None:
    if kind == AMP and torch.cuda.is_available():
        pytest.skip('the model is on the CPU')
    model = Model()
    wrapper = _build(model, kind, clip_grad=clip)
    _step(model, wrapper, GOOD)
    before = _state(model)
    for skipped in (1, 2):
        _step(model, wrapper, BAD)
        assert (wrapper.cause, wrapper.is_local, wrapper.skipped) == ('loss', True, skipped)
        assert _equal(_state(model), before)  # the statistics of BN too
        assert all(p.grad is None for p in model.parameters())
    _step(model, wrapper, GOOD)
    assert wrapper.cause is None and wrapper.skipped == 0
    assert not _equal(_state(model), before) and all(value.isfinite().all() for value in _state(model))


def test_a_gradient_that_is_not_finite() -> None:
    model = Model()
    wrapper = _build(model)
    before = _state(model)
    _step(model, wrapper, GOOD, root=True)
    assert (wrapper.cause, wrapper.is_local) == ('gradient', True)
    assert _equal(_state(model), before)


def test_frozen_statistics_are_not_copied() -> None:
    model = Model()
    model.norm.eval()
    wrapper = _build(model)
    with wrapper.optim_context(model):
        assert not wrapper._buffers


def test_one_of_the_batches_of_a_step() -> None:
    model = Model()
    wrapper = _build(model, accumulative_counts=3)
    before = _state(model)
    for x in (GOOD, BAD):
        _step(model, wrapper, x)
        assert wrapper.cause is None
    _step(model, wrapper, GOOD)
    assert wrapper.cause == 'loss' and _equal(_state(model), before)
    for _ in range(3):
        _step(model, wrapper, GOOD)
    assert wrapper.cause is None and not _equal(_state(model), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason='the model is on the CPU')
def test_an_overflow_that_the_loss_scaler_handles_is_not_counted() -> None:
    model = Model()
    wrapper = _build(model, AMP)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=4.0)
    before = [p.detach().clone() for p in model.parameters()]
    _step(model, wrapper, GOOD, root=True)
    _step(model, wrapper, GOOD, root=True)
    assert (wrapper.skipped, wrapper.cause, wrapper.loss_scaler.get_scale()) == (0, None, 1.0)
    assert _equal(before, list(model.parameters()))  # the scaler skipped these steps
    _step(model, wrapper, GOOD, root=True)  # the scale was not the reason
    assert wrapper.cause == 'gradient'


@pytest.mark.parametrize(
    ('others', 'mine', 'expected'),
    [
        ([0, 0], GOOD, (None, False)),
        ([1, 0], GOOD, ('loss', False)),
        ([0, 1], GOOD, ('gradient', True)),
        ([0, 0], BAD, ('loss', True)),
    ],
)
def test_processes_agree_by_one_reduction(
    others: list[int], mine: Tensor, expected: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    reductions = []

    def reduce(flags: Tensor, how: str) -> None:
        reductions.append(how)
        flags.copy_(torch.maximum(flags, torch.tensor(others, dtype=flags.dtype)))

    monkeypatch.setattr(nonfinite, 'all_reduce', reduce)
    model = Model()
    wrapper = _build(model)
    _step(model, wrapper, mine)
    assert (wrapper.cause, wrapper.is_local) == expected
    assert reductions == ['max']


def test_the_host_waits_once_a_step() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(20)))
    wrapper = _build(model)
    with wrapper.optim_context(model):
        loss = model(GOOD).sum()
    with count() as cost:
        wrapper.update_params(loss)
    assert cost.waits == 1


def test_a_step_without_update_params_is_judged_by_its_gradients() -> None:
    weight = nn.Parameter(torch.ones(2))
    wrapper = SkipNonFinite(torch.optim.SGD([weight], lr=1))
    wrapper.step()  # there is none
    assert wrapper.cause is None
    weight.grad = torch.tensor([1.0, float('nan')])
    wrapper.step()
    assert wrapper.skipped == 1 and weight.tolist() == [1, 1]


def test_images_are_named_and_the_third_step_in_a_row_ends_the_run() -> None:
    model, lines, hook = Model(), [], NonFiniteHook()
    wrapper = _build(model)
    runner = SimpleNamespace(optim_wrapper=wrapper, iter=0, rank=1, logger=SimpleNamespace(error=lines.append))

    def train(x: Tensor) -> None:
        _step(model, wrapper, x)
        sample = DetDataSample(metainfo={'img_path': f'{runner.iter}.jpg'})
        hook.after_train_iter(runner, runner.iter, {'data_samples': [sample]}, {'loss_cls': x.sum()})
        runner.iter += 1

    for x in (BAD, GOOD, BAD, BAD):
        train(x)
    expected = 'process 1: a loss is not finite and the step was skipped (loss_cls inf), images: '
    assert lines == [f'Iteration {i + 1}, {expected}{i}.jpg.' for i in (0, 2, 3)]
    with pytest.raises(RunError, match=r'^3 steps in a row had a loss .* iteration 5 \(images 4.jpg\): lower the'):
        train(BAD)
