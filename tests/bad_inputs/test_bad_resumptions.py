"""Checkpoints to resume: nothing that they hold beside weights is run, and what no training left there is named."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.runner import FlexibleRunner

from centermask.checkpoints.newest import find_newest
from centermask.engine import checkpoint_hook, resumption, sharding
from centermask.engine import runner as runners


@pytest.fixture
def saved(config: Path, outcome: Callable, tmp_path: Path) -> dict:
    """What a training saved."""
    ended = outcome('train', config, '--work-dir', tmp_path / 'saved', *_options('first', tmp_path))
    assert ended.code == 0, ended.said
    return torch.load(tmp_path / 'saved/iter_1.pth')


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
def test_nor_in_one_of_a_sharded_training(guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / 'mark'
    strategy = object.__new__(sharding.ShardedStrategy)  # of no processes
    strategy._checkpoint = _with_code({'meta': {'iter': 1, 'epoch': 0}, 'message_hub': {}}, mark)
    monkeypatch.setattr(sharding.FSDPStrategy, 'resume', lambda self, *_, **__: self._checkpoint)
    if not guarded:
        monkeypatch.setattr(sharding, 'require_training', lambda *_: None)
    anything = SimpleNamespace(load_state_dict=lambda _: None, info=lambda _: None, warning=lambda _: None)
    parts = dict(message_hub=anything, logger=anything, train_loop=anything, epoch=0, iter=1)
    runner = SimpleNamespace(strategy=strategy, train_dataloader=SimpleNamespace(dataset=None), **parts)
    FlexibleRunner.resume(runner, 'a.pth')
    assert mark.exists() != guarded
