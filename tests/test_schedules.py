"""Every recipe's optimiser and schedule: which parameters train, at what rate, with what decay, at each iteration.

Facts, not configs, are what is expected: those of the two released implementations.
"""

import math
import re
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from helpers.read_configs import CONFIGS, read_config
from mmcv.cnn import Scale
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import ConstantLR, LinearLR, MultiStepLR, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

# One config of each recipe and length, and the one with a warm-up of its own.
NAMES = [
    *(f'centermask_v2-39_fpn_{length}_coco' for length in ('1x', '2x', '3x')),
    'centermask-lite_v2-39_fpn_4x_coco',
    'centermask-star_v2-39_fpn_3x_coco',
    'centermask-lite-star_v2-39_fpn_4x_coco',
    'centermask_x101_fpn_2x_coco',
]

# Iterations of 16 images, and where the rate falls to a tenth.
LENGTHS = {
    '1x': (90_000, 60_000, 80_000),
    '2x': (180_000, 120_000, 160_000),
    '3x': (270_000, 210_000, 250_000),
    '4x': (360_000, 300_000, 340_000),
}
BASE_RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4
# Of the base rate and of the decay, by what a parameter is.
RATES = {'paper': {'bias': 2, 'norm bias': 2}, 'star': {}}
DECAYS = {'paper': {'bias': 0, 'norm bias': 0}, 'star': {'norm weight': 0, 'norm bias': 0}}


class WarmUp(NamedTuple):
    """A recipe's start: a part of the rate, held or growing linearly to all of it, until an iteration."""

    start: float
    until: int
    linear: bool

    def factor(self, iteration: int) -> float:
        done = min(iteration / self.until, 1)
        if not self.linear and done < 1:
            done = 0
        return self.start * (1 - done) + done


WARM_UPS = {'paper': WarmUp(1 / 3, 500, linear=False), 'star': WarmUp(0.001, 1000, linear=True)}
OWN_WARM_UPS = {'centermask_x101_fpn_2x_coco': WarmUp(0.2, 1000, linear=False)}


def _recipe(name: str) -> str:
    return 'star' if '-star' in name else 'paper'


def _length(name: str) -> str:
    return re.search(r'_(\dx)_coco$', name)[1]


def _factor(warm_up: WarmUp, length: str, iteration: int) -> float:
    return warm_up.factor(iteration) * 0.1 ** sum(iteration >= step for step in LENGTHS[length][1:])


_models: dict[str, nn.Module] = {}


def _model(config: Config) -> nn.Module:
    """The model as it trains, without memory and without the file that its backbone starts from; built once."""
    config.model.backbone.init_cfg = None
    described = str(config.model)
    if described not in _models:
        with torch.device('meta'):
            _models[described] = MODELS.build(config.model).train()
    return _models[described]


def _kinds(model: nn.Module) -> dict[str, str]:
    """What each parameter is."""
    kinds = {}
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            kind = name
            if isinstance(module, nn.BatchNorm2d):
                kind = 'frozen'
            elif isinstance(module, nn.GroupNorm):
                kind = f'norm {name}'
            elif isinstance(module, Scale):
                kind = 'level scale'
            kinds[f'{prefix}.{name}'] = kind
    return kinds


class Schedule:
    """A config's optimiser and schedulers, which go from iteration to iteration as the training loop makes them."""

    def __init__(self, config: Config, model: nn.Module) -> None:
        self.wrapper = build_optim_wrapper(model, config.optim_wrapper)
        # MMEngine gives each parameter a group of its own; what begins alike goes on alike, in a fraction of the time.
        groups: dict[tuple, dict] = {}
        for group in self.wrapper.optimizer.param_groups:
            settings = tuple((key, value) for key, value in group.items() if key != 'params')
            groups.setdefault(settings, {**group, 'params': []})['params'] += group['params']
        self.wrapper.optimizer.param_groups[:] = groups.values()
        self.schedulers = [
            # The runner ends at the end of the training what has no end of its own.
            PARAM_SCHEDULERS.build({'end': config.train_cfg.max_iters, **s}, default_args=dict(optimizer=self.wrapper))
            for s in config.param_scheduler
        ]
        self.wrapper.step()  # there are no gradients; schedulers warn unless it comes before their own step
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.iteration = 0

    def go_to(self, iteration: int) -> None:
        """Take each step on the way but those on which every scheduler stands still, which are only counted."""
        hook, runner = ParamSchedulerHook(), SimpleNamespace(param_schedulers=self.schedulers)
        while self.iteration < iteration:
            still = min(iteration, self._next_change() - 1) - self.iteration
            if still > 1:
                for scheduler in self.schedulers:
                    self._count(scheduler, still)
                self.iteration += still
            else:
                hook.after_train_iter(runner, self.iteration)
                self.iteration += 1

    def settings(self) -> dict[str, tuple[float, float]]:
        """Learning rate and weight decay of every parameter that the optimiser has."""
        groups = self.wrapper.optimizer.param_groups
        return {self.names[id(p)]: (group['lr'], group['weight_decay']) for group in groups for p in group['params']}

    def _next_change(self) -> int:
        warm_up, steps = self.schedulers
        assert isinstance(warm_up, ConstantLR | LinearLR) and isinstance(steps, MultiStepLR)
        if self.iteration <= warm_up.end:
            return self.iteration + 1
        return min((step for step in steps.milestones if step > self.iteration), default=steps.end)

    @staticmethod
    def _count(scheduler: ConstantLR | LinearLR | MultiStepLR, steps: int) -> None:
        """As if a training resumed so much later."""
        state = scheduler.state_dict()
        if state['_global_step'] + steps < scheduler.end:
            state['last_step'] += steps
        state['_global_step'] += steps
        scheduler.load_state_dict(state)


def _check(config: Config, recipe: str, length: str, warm_up: WarmUp) -> None:
    """Rate and decay of every parameter: in the warm-up, on both sides of its end and of each step, and at the last."""
    model = _model(config)
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    kinds = {name: kind for name, kind in _kinds(model).items() if name in trains}
    assert set(kinds.values()) == {'weight', 'bias', 'norm weight', 'norm bias', 'level scale'}
    schedule = Schedule(config, model)
    end, first, second = LENGTHS[length]
    for iteration in (0, 1, 250, 499, 500, 999, 1000, 1001, first - 1, first, second - 1, second, end - 1):
        schedule.go_to(iteration)
        settings = schedule.settings()
        assert settings.keys() == kinds.keys()
        rate = BASE_RATE * _factor(warm_up, length, iteration)
        for name, kind in kinds.items():
            expected = (rate * RATES[recipe].get(kind, 1), DECAY * DECAYS[recipe].get(kind, 1))
            close = all(map(math.isclose, settings[name], expected))  # by 1e-9 of them
            assert close, f'{name} at {iteration}: {settings[name]}, not {expected}'


@pytest.mark.parametrize('name', NAMES)
def test_rate_and_decay(name: str) -> None:
    recipe, length = _recipe(name), _length(name)
    _check(read_config(name), recipe, length, OWN_WARM_UPS.get(name, WARM_UPS[recipe]))


def test_every_config_has_the_schedule_of_its_name() -> None:
    """The rows of Tables 1 to 4 and the released models: like those whose every parameter is checked above."""
    wholes = {(_recipe(name), _length(name)): read_config(name) for name in NAMES if name not in OWN_WARM_UPS}
    names = [path.stem for path in CONFIGS.rglob('*_coco.py') if path.stem.startswith(('centermask', 'fcos'))]
    assert len(names) > 60
    for name in names:
        config, whole = read_config(name), wholes[_recipe(name), _length(name)]
        assert config.train_cfg == whole.train_cfg, name
        assert config.optim_wrapper == whole.optim_wrapper, name
        assert config.param_scheduler == whole.param_scheduler or name in OWN_WARM_UPS, name


@pytest.mark.parametrize('name', ['centermask_v2-39_fpn_3x_coco', 'centermask-star_v2-39_fpn_3x_coco'])
def test_optimizer(name: str) -> None:
    """SGD with momentum; gradients are neither clipped nor accumulated."""
    config = read_config(name)
    wrapper = build_optim_wrapper(nn.Conv2d(1, 1, 1), config.optim_wrapper)
    assert type(wrapper.optimizer) is torch.optim.SGD
    for group in wrapper.optimizer.param_groups:
        assert (group['momentum'], group['dampening'], group['nesterov']) == (MOMENTUM, 0, False)
    assert not wrapper.clip_grad_kwargs
    assert wrapper._accumulative_counts == 1


@pytest.mark.parametrize('backbone', ['r50', 'x101', 'hrnetv2-w18', 'v2-39', 'mobilenetv2'])
def test_frozen(backbone: str) -> None:
    """All BN; of ResNets the stem and the first stage; nothing else, neither of other backbones nor of the heads."""
    model = _model(read_config(f'centermask_{backbone}_fpn_1x_coco'))
    kinds = _kinds(model)
    first = re.compile(r'backbone\.(conv1|layer1)\.' if backbone in ('r50', 'x101') else r'$.')
    expected = {key for key, kind in kinds.items() if kind == 'frozen' or first.match(key)}
    assert {key for key, parameter in model.named_parameters() if not parameter.requires_grad} == expected
    assert {key.split('.')[0] for key in expected} == {'backbone'}
