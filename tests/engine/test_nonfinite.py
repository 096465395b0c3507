"""Steps that aren't finite are left out."""

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from centermask.benchmark.counting import count
from centermask.engine import nonfinite as finite
from centermask.engine.nonfinite import FiniteSteps, NotFinite
from centermask.engine.preemption import Interruption


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


def _build(model: nn.Module, kind: str = 'OptimWrapper', **kwargs: object) -> FiniteSteps:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return OPTIM_WRAPPERS.build(dict(type=kind, optimizer=optimizer, **kwargs))


def _step(model: nn.Module, wrapper: FiniteSteps, x: Tensor, **kwargs: bool) -> None:
    with wrapper.optim_context(model):
        loss = model(x, **kwargs)
    wrapper.update_params(loss)


def _state(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize('kind', ['OptimWrapper', 'AmpOptimWrapper'])
@pytest.mark.parametrize('clip', [None, {'max_norm': 1.0}])
def test_no_trace_of_a_loss_that_is_not_finite(kind: str, clip: dict | None) -> None:
    if kind == 'AmpOptimWrapper' and torch.cuda.is_available():
        pytest.skip('the model is on the CPU')
    model = Model()
    wrapper = _build(model, kind, clip_grad=clip)
    _step(model, wrapper, GOOD)
    before = _state(model)
    for left_out in (1, 2):
        _step(model, wrapper, BAD)
        assert wrapper.not_finite == NotFinite(losses=True, here=True) and wrapper.left_out == left_out
        assert _equal(_state(model), before)  # the statistics of BN too
        assert all(p.grad is None for p in model.parameters())
    _step(model, wrapper, GOOD)
    assert wrapper.not_finite is None and wrapper.left_out == 0
    assert not _equal(_state(model), before) and all(value.isfinite().all() for value in _state(model))


def test_a_gradient_that_is_not_finite() -> None:
    model = Model()
    wrapper = _build(model)
    before = _state(model)
    _step(model, wrapper, GOOD, root=True)
    assert wrapper.not_finite == NotFinite(losses=False, here=True)
    assert _equal(_state(model), before)


def test_one_of_the_batches_that_make_up_a_step() -> None:
    model = Model()
    wrapper = _build(model, accumulative_counts=3)
    before = _state(model)
    for x in (GOOD, BAD):
        _step(model, wrapper, x)
        assert wrapper.not_finite is None
    _step(model, wrapper, GOOD)
    assert wrapper.not_finite is not None and _equal(_state(model), before)
    for _ in range(3):
        _step(model, wrapper, GOOD)
    assert wrapper.not_finite is None and not _equal(_state(model), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason='the model is on the CPU')
def test_an_overflow_that_the_scaler_handles_is_no_failure() -> None:
    model = Model()
    wrapper = _build(model, 'MixedPrecisionOptimWrapper')
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=4.0)
    before = [p.detach().clone() for p in model.parameters()]
    _step(model, wrapper, GOOD, root=True)
    _step(model, wrapper, GOOD, root=True)
    assert (wrapper.left_out, wrapper.not_finite, wrapper.loss_scaler.get_scale()) == (0, None, 1.0)
    assert _equal(before, list(model.parameters()))  # the scaler left these steps out
    _step(model, wrapper, GOOD, root=True)  # it was not for the scale
    assert wrapper.not_finite == NotFinite(losses=False, here=True)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=4.0)
    _step(model, wrapper, BAD)
    assert wrapper.not_finite == NotFinite(losses=True, here=True)


@pytest.mark.parametrize(
    ('others', 'mine', 'expected', 'signal'),
    [
        ([0, 0, 0], GOOD, None, None),
        ([1, 0, 0], GOOD, NotFinite(losses=True, here=False), None),
        ([1, 1, 15], GOOD, NotFinite(losses=True, here=False), 15),
        ([0, 1, 0], GOOD, NotFinite(losses=False, here=True), None),
        ([0, 0, 0], BAD, NotFinite(losses=True, here=True), None),
        ([0, 0, 15], GOOD, None, 15),
    ],
)
def test_processes_agree(
    others: list[int], mine: Tensor, expected: NotFinite | None, signal: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reductions = []

    def reduce(words: Tensor, how: object) -> None:
        reductions.append(how)
        words.copy_(torch.maximum(words, torch.tensor(others, dtype=words.dtype)))

    monkeypatch.setattr(finite.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(finite.distributed, 'get_world_size', lambda: 2)
    monkeypatch.setattr(finite.distributed, 'all_reduce', reduce)
    model = Model()
    wrapper = _build(model)
    wrapper.interruption = Interruption()
    _step(model, wrapper, mine)
    assert (wrapper.not_finite, wrapper.interrupted_by) == (expected, signal)
    assert reductions == [finite.distributed.ReduceOp.MAX]


def test_the_host_waits_once_a_step() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(20)))
    wrapper = _build(model)
    with wrapper.optim_context(model):
        loss = model(GOOD).sum()
    with count() as cost:
        wrapper.update_params(loss)
    assert cost.waits == 1


def test_step_of_ones_own() -> None:
    """Without ``update_params`` a step is judged by its gradients, of which there may be none."""
    weight = nn.Parameter(torch.ones(2))
    wrapper = FiniteSteps(torch.optim.SGD([weight], lr=1))
    wrapper.step()
    assert wrapper.not_finite is None
    weight.grad = torch.tensor([1.0, float('nan')])
    wrapper.step()
    assert wrapper.left_out == 1 and weight.tolist() == [1, 1]
    weight.grad = torch.tensor([0.5, 0.0])
    wrapper.step()
    assert wrapper.left_out == 0 and weight.tolist() == [0.5, 1]
