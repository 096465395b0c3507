"""A resumed training follows the schedule of its config, also where the checkpoint was saved with another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from torch import Tensor
from torch.utils.data import Dataset

from centermask.engine.runner import CenterMaskRunner
from centermask.utils.errors import InputError

STEPS = 20
WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5)


class Line(BaseModel):
    """The smallest model that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, *x: Tensor, mode: str) -> Any:
        return dict(loss=(self.layer(torch.stack(x)) ** 2).mean())


class Ones(Dataset):
    """Eight samples."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        return torch.ones(1)


def _cosine(end: int, **settings: Any) -> list[dict]:
    return [dict(WARM_UP), dict(type='CosineAnnealingLR', by_epoch=False, begin=5, end=end, **settings)]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[CenterMaskRunner, list[float]]]:
    """A function that trains, from a checkpoint if one is given; it returns the runner and each iteration's rate."""
    monkeypatch.setattr(CenterMaskRunner, '_log_env', lambda *_: None)  # it asks compilers for their versions
    runs = []

    def call(
        schedulers: list[dict] | None, iterations: int, resume: Path | None = None, epochs: int = 0, **settings: Any
    ) -> tuple[CenterMaskRunner, list[float]]:
        runs.append(None)
        torch.manual_seed(0)
        optimizer = dict(type='SGD', lr=0.1, momentum=0.9)
        paramwise = settings.pop('paramwise_cfg', {})
        hook = dict(type='CheckpointHook', by_epoch=bool(epochs), interval=epochs or STEPS)
        hook['save_param_scheduler'] = settings.pop('save_param_scheduler', True)
        optimizer.update(settings)
        data = dict(dataset=Ones(), batch_size=2, num_workers=0)
        loop = dict(by_epoch=False, max_iters=iterations)
        if epochs:
            data['sampler'] = dict(type='DefaultSampler', shuffle=False)
            loop = dict(by_epoch=True, max_epochs=epochs)
        else:
            data['sampler'] = dict(type='InfiniteSampler', shuffle=False)
        runner = CenterMaskRunner(
            Line(),
            str(tmp_path / str(len(runs))),
            data,
            train_cfg=loop,
            optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer, paramwise_cfg=paramwise),
            param_scheduler=schedulers,
            default_hooks=dict(checkpoint=hook, logger=None),
            load_from=str(resume) if resume else None,
            resume=bool(resume),
            experiment_name=f'{tmp_path.name}_{len(runs)}',
            default_scope='mmdet',  # tests that follow need it too
        )
        rates: list[float] = []
        step = runner.call_hook

        def call_hook(name: str, **arguments: Any) -> None:
            if name == 'before_train_iter':
                rates.append(runner.optim_wrapper.param_groups[0]['lr'])
            step(name, **arguments)

        runner.call_hook = call_hook
        runner.train()
        return runner, rates

    return call


def _checkpoint(tmp_path: Path, run: int = 1) -> Path:
    return tmp_path / str(run) / f'iter_{STEPS}.pth'


def _log(runner: CenterMaskRunner) -> list[str]:
    (log,) = Path(runner.work_dir).glob('*/*.log')
    return [line for line in log.read_text().splitlines() if 'schedule replaces' in line]


CHANGES: dict[str, tuple[dict, dict, str]] = {  # the first training, the resumed one, words of the line
    'longer cosine': (
        dict(schedulers=_cosine(20)),
        dict(schedulers=_cosine(40)),
        'param_scheduler.1.T_max 15 → 35, param_scheduler.1.end 20 → 40',
    ),
    'another rate': (
        dict(schedulers=_cosine(40)),
        dict(schedulers=_cosine(40), lr=0.3, weight_decay=0.01),
        'weight_decay 0 → 0.01, lr 0.1 → 0.3',
    ),
    'no schedulers': (dict(schedulers=None), dict(schedulers=None, lr=0.3), 'lr 0.1 → 0.3'),
    'more schedulers': (dict(schedulers=[WARM_UP]), dict(schedulers=_cosine(40)), 'progress'),
    'another scheduler': (
        dict(schedulers=_cosine(20)),
        dict(schedulers=[dict(type='MultiStepLR', by_epoch=False, milestones=[30], gamma=0.1)]),
        'param_scheduler.0',
    ),
    'groups': (
        dict(schedulers=_cosine(20), paramwise_cfg=dict(bias_lr_mult=2.0)),
        dict(schedulers=_cosine(40), paramwise_cfg=dict(bias_lr_mult=2.0)),
        'T_max',
    ),
    'momentum': (
        dict(schedulers=[dict(type='CosineAnnealingMomentum', by_epoch=False, end=20)]),
        dict(schedulers=[dict(type='CosineAnnealingMomentum', by_epoch=False, end=40)]),
        'T_max',
    ),
}


@pytest.mark.parametrize('case', CHANGES)
def test_the_config_holds(case: str, train: Callable, tmp_path: Path) -> None:
    first, second, words = CHANGES[case]
    train(iterations=STEPS, **first)
    resumed, rates = train(iterations=2 * STEPS, resume=_checkpoint(tmp_path), **second)
    whole, expected = train(iterations=2 * STEPS, **second)
    assert rates == expected[STEPS:] and len(rates) == STEPS
    for group, other in zip(resumed.optim_wrapper.param_groups, whole.optim_wrapper.param_groups, strict=True):
        assert {**group, 'params': None} == {**other, 'params': None}
    (line,) = _log(resumed)
    assert words in line and f'iteration {STEPS + 1} is trained at a learning rate of {rates[0]:.4g}, not ' in line
    assert not _log(whole)


def test_momentum_is_kept(train: Callable, tmp_path: Path) -> None:
    train(_cosine(20), STEPS)
    saved = torch.load(_checkpoint(tmp_path))
    resumed, _ = train(_cosine(40), STEPS, resume=_checkpoint(tmp_path), lr=0.3)  # trains no iteration more
    state = resumed.optim_wrapper.optimizer.state_dict()['state']
    assert state.keys() == saved['optimizer']['state'].keys() and len(state) == 2
    for index, values in state.items():
        assert torch.equal(values['momentum_buffer'], saved['optimizer']['state'][index]['momentum_buffer'])


@pytest.mark.parametrize('settings', [{}, dict(paramwise_cfg=dict(bias_lr_mult=2.0))])
def test_the_same_schedule_goes_on_exactly(train: Callable, tmp_path: Path, settings: dict) -> None:
    whole, expected = train(_cosine(40), 2 * STEPS, **settings)
    resumed, rates = train(_cosine(40), 2 * STEPS, resume=_checkpoint(tmp_path), **settings)
    assert rates == expected[STEPS:] and not _log(resumed)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_checkpoint_without_the_schedule(train: Callable, tmp_path: Path) -> None:
    """It was saved with ``save_param_scheduler=False``; MMEngine would warm up again."""
    _, expected = train(_cosine(40), 2 * STEPS, save_param_scheduler=False)
    resumed, rates = train(_cosine(40), 2 * STEPS, resume=_checkpoint(tmp_path), save_param_scheduler=False)
    assert rates == expected[STEPS:]
    assert 'the progress of the schedule' in _log(resumed)[0]


def test_schedule_by_epoch(train: Callable, tmp_path: Path) -> None:
    def schedule(end: int) -> list[dict]:
        return [dict(WARM_UP), dict(type='CosineAnnealingLR', by_epoch=True, begin=2, end=end)]

    train(schedule(5), 0, epochs=5)
    resumed, rates = train(schedule(10), 0, resume=tmp_path / '1/epoch_5.pth', epochs=10)
    _, expected = train(schedule(10), 0, epochs=10)
    assert len(rates) == STEPS and rates == expected[STEPS:]
    assert len(_log(resumed)) == 1


def test_schedule_that_follows_validations(train: Callable, tmp_path: Path) -> None:
    plateau = [dict(type='ReduceOnPlateauLR', by_epoch=True, monitor='loss')]
    train(plateau, STEPS)
    with pytest.raises(InputError, match="lr can't change when a training resumes with ReduceOnPlateauLR"):
        train(plateau, 2 * STEPS, resume=_checkpoint(tmp_path), lr=0.3)


@pytest.mark.parametrize('warm_up', [dict(WARM_UP, end=1), dict(type='ConstantLR', factor=0.1, by_epoch=False, end=1)])
def test_warm_up_of_one_step_is_refused(warm_up: dict, train: Callable) -> None:
    with pytest.raises(InputError, match='has but one, which keeps the first: set its end to 2 or more'):
        train([warm_up], 3)
