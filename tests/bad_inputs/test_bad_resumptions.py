"""Checkpoints to resume: nothing that they hold beside weights is run, and what no training left there is named."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine import hooks
from mmengine.logging import MessageHub
from mmengine.runner import FlexibleRunner

from centermask.checkpoints import loading
from centermask.checkpoints.latest import find_newest
from centermask.engine import checkpoint_hook, resumption, sharding
from centermask.engine import runner as runners

SAVED: dict = {}  # by the first test that asks for it
SCHEDULE = "param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]\n"


def _meta(**changes: Any) -> Callable[[dict], dict]:
    return lambda content: {**content, 'meta': {**content['meta'], **changes}}


def _with(**parts: Any) -> Callable[[dict], dict]:
    return lambda content: {**content, **parts}


def _without(*parts: str) -> Callable[[dict], dict]:
    return lambda content: {key: value for key, value in content.items() if key not in parts}


def _optimizer(change: Callable[[dict], Any]) -> Callable[[dict], dict]:
    return lambda content: {**content, 'optimizer': change(copy.deepcopy(content['optimizer']))}


def _adams(_: dict) -> dict:
    return torch.optim.Adam(torch.nn.Linear(1, 1).parameters()).state_dict()


def _hub(**changes: Any) -> Callable[[dict], dict]:
    return lambda content: {**content, 'message_hub': {**content['message_hub'], **changes}}


CASES: dict[str, tuple[Callable[[dict], Any], str]] = {  # what is made of the file, words
    'meta of a number': (_with(meta=5), 'its meta is 5 and no dict'),
    'no meta': (_without('meta'), 'holds weights only'),
    'iterations as text': (_meta(iter='x'), "its meta.iter is 'x'"),
    'iterations below 0': (_meta(iter=-5), 'its meta.iter is -5'),
    'more iterations than there can be': (_meta(iter=10**30), 'its meta.iter is 1000'),
    'no epoch': (lambda saved: _meta()(saved) | {'meta': {'iter': 1}}, 'its meta.epoch is None'),
    'an order of images of numbers': (_meta(draws=[5]), "can't be resumed"),
    'no logs': (_without('message_hub'), 'its message_hub, the logs of a training, is missing'),
    'logs without scalars': (_hub(log_scalars=5), "can't be resumed"),
    'files to be removed': (_hub(runtime_info={'keep_ckpt_ids': ['../x']}), "keep_ckpt_ids is ['../x']"),
    'no optimiser': (_without('optimizer'), "the optimiser's state is missing"),
    'an optimiser of a number': (_with(optimizer=5), "the optimiser's state is missing or no dict"),
    'an optimiser of other weights': (
        _optimizer(lambda state: state | {'param_groups': state['param_groups'] * 2}),
        "can't be resumed, ValueError",
    ),
    'another optimiser': (_optimizer(_adams), "its optimiser is not the config's SGD (momentum)"),
    'a rate of text': (
        _optimizer(lambda state: state | {'param_groups': [{**state['param_groups'][0], 'lr': 'x'}]}),
        "its optimiser is not the config's SGD (lr)",
    ),
    'no schedules': (_without('param_schedulers'), "the schedules' state is missing"),
    'schedules of nothing': (_with(param_schedulers=[{}]), 'one of its param_schedulers is {}'),
}
SILENT = ('no optimiser', 'no schedules', 'schedules of nothing', 'files to be removed')


@pytest.fixture
def saved(config: Path, outcome: Callable, tmp_path: Path) -> dict:
    """What a training saved."""
    if SAVED:
        return copy.deepcopy(SAVED)
    ended = outcome('train', config, '--work-dir', tmp_path / 'saved', *_options('first', tmp_path))
    assert ended.code == 0, ended.said
    SAVED.update(torch.load(tmp_path / 'saved/iter_1.pth'))
    return copy.deepcopy(SAVED)


def _options(name: str, tmp_path: Path, *words: str) -> list[str]:
    # Runs of one name share their log.
    hook = ('type=CheckpointHook', 'by_epoch=False', 'interval=1')
    return [
        *('--cfg-options', f'experiment_name={tmp_path.name}_{name}'),
        *(f'default_hooks.checkpoint.{word}' for word in (*hook, *words)),
    ]


def _resume(outcome: Callable, config: Path, tmp_path: Path, content: Any) -> Any:
    """Save it and train on from it, for one iteration more."""
    path = tmp_path / 'a.pth'
    torch.save(content, path)
    options = [*_options('again', tmp_path), 'train_cfg.max_iters=2']
    return outcome('train', config, '--work-dir', tmp_path / 'run', '--resume', path, *options)


def _schedule(case: str, config: Path) -> None:
    if 'schedules' in case:
        config.write_text(config.read_text() + SCHEDULE)


@pytest.mark.parametrize('case', CASES)
def test_refused(case: str, saved: dict, config: Path, outcome: Callable, tmp_path: Path) -> None:
    change, words = CASES[case]
    _schedule(case, config)
    before = {*tmp_path.rglob('*')}
    ended = _resume(outcome, config, tmp_path, change(saved))
    ended = ended._replace(written=[path for path in ended.written if path not in before])
    assert ended.refused(str(tmp_path / 'a.pth'), words), ended


@pytest.mark.parametrize('case', CASES)
def test_without_the_guard_it_is_a_traceback_or_another_training(
    case: str, saved: dict, config: Path, outcome: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, _ = CASES[case]
    _schedule(case, config)
    monkeypatch.setattr(loading, 'Mapping', object)
    monkeypatch.setattr(runners, 'require_training', lambda *_: None)
    monkeypatch.setattr(runners, 'require_same_optimizer', lambda *_: None)
    monkeypatch.setattr(runners, 'explained_resumption', lambda _: nullcontext())
    assert _resume(outcome, config, tmp_path, change(saved)).code == (0 if case in SILENT else -1)


def _with_code(content: dict, mark: Path) -> dict:
    """With a config that leaves a mark where it is executed."""
    return {**content, 'meta': {**content['meta'], 'config': f"a = open({str(mark)!r}, 'w').close()\n"}}


@pytest.mark.parametrize('guarded', [True, False])
def test_the_config_in_a_checkpoint_is_not_executed(
    guarded: bool, saved: dict, config: Path, outcome: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        monkeypatch.setattr(runners, 'require_training', lambda *_: None)
    mark = tmp_path / 'mark'
    assert _resume(outcome, config, tmp_path, _with_code(saved, mark)).code == 0
    assert mark.exists() != guarded


@pytest.mark.parametrize('guarded', [True, False])
def test_checkpoints_of_other_names_are_found(
    guarded: bool, config: Path, outcome: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the training begins anew in the folder."""
    if not guarded:
        monkeypatch.setattr(resumption, 'find_newest', lambda work_dir, _: find_newest(work_dir / 'none'))
    run = (config, '--work-dir', tmp_path / 'run', '--resume')
    for name, iterations in (('first', 1), ('again', 2)):
        options = _options(name, tmp_path, 'filename_tmpl=ckpt_{}.pth')
        assert outcome('train', *run, *options, f'train_cfg.max_iters={iterations}').code == 0
    logs = ''.join(path.read_text() for path in (tmp_path / 'run').glob('*/*.log'))
    assert ('resumed epoch: 0, iter: 1' in logs) == guarded


def test_checkpoints_of_one_name_would_be_lost(
    config: Path, outcome: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused in test_bad_configs.py."""
    monkeypatch.setattr(checkpoint_hook, 'numbered', lambda _: None)
    options = [*_options('run', tmp_path, 'filename_tmpl=latest.pth', 'max_keep_ckpts=1'), 'train_cfg.max_iters=2']
    assert outcome('train', config, '--work-dir', tmp_path / 'run', *options).code == 0
    assert not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize('guarded', [True, False])
@pytest.mark.parametrize('name', ['kept', 'run/../kept'])
def test_the_best_checkpoint_is_none_outside_the_folder(name: str, guarded: bool, tmp_path: Path) -> None:
    """MMEngine removes what the file says was the best, a folder with all that is in it, when a better one comes."""
    (tmp_path / 'kept/photos').mkdir(parents=True)
    (tmp_path / 'run').mkdir()
    hub = MessageHub.get_instance(tmp_path.name)
    hub.update_info('best_ckpt', str(tmp_path / name))
    hub.update_info('best_score', 0.1)
    anything = SimpleNamespace(info=lambda _: None)
    saves = dict(save_checkpoint=lambda *_, **__: None, message_hub=hub, logger=anything, epoch=0, iter=1)
    runner = SimpleNamespace(work_dir=str(tmp_path / 'run'), **saves)
    hook = (checkpoint_hook if guarded else hooks).CheckpointHook(by_epoch=False, save_best='ap', rule='greater')
    hook.before_train(runner)
    hook._save_best_checkpoint(runner, {'ap': 0.5})
    assert (tmp_path / 'kept').exists() == guarded


@pytest.mark.parametrize('guarded', [True, False])
def test_nor_in_one_of_a_sharded_training(guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / 'mark'
    strategy = object.__new__(sharding.ShardedStrategy)  # of no processes
    parts = {'meta': {'iter': 1, 'epoch': 0}, 'message_hub': {'runtime_info': {}}, 'optimizer': {}}
    strategy._checkpoint = _with_code(parts, mark)
    monkeypatch.setattr(sharding, 'require_same_optimizer', lambda *_: None)
    strategy.optim_wrapper = None
    monkeypatch.setattr(sharding.FSDPStrategy, 'resume', lambda self, *_, **__: self._checkpoint)
    if not guarded:
        monkeypatch.setattr(sharding, 'require_training', lambda *_: None)
    anything = SimpleNamespace(load_state_dict=lambda _: None, info=lambda _: None, warning=lambda _: None)
    others = dict(message_hub=anything, logger=anything, train_loop=anything, epoch=0, iter=1)
    runner = SimpleNamespace(strategy=strategy, train_dataloader=SimpleNamespace(dataset=None), **others)
    FlexibleRunner.resume(runner, 'a.pth')
    assert mark.exists() != guarded
