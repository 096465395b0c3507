"""Checkpoints to resume: nothing in them is run, and a missing or wrong part is named."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SAVED: dict = {}  # by the first test that asks for it


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


CASES: dict[str, tuple[Callable[[dict], Any], str]] = {  # the change of the file, words of the sentence
    'no meta': (_without('meta'), 'holds weights only'),
    'iterations as text': (_meta(iter='x'), "its meta.iter is 'x'"),
    'no logs': (_without('message_hub'), 'its message_hub'),
    'files to be removed': (_hub(runtime_info={'keep_ckpt_ids': ['../x']}), 'keep_ckpt_ids'),
    'a count as text': (_hub(runtime_info={'early_stopping': [0.5, 'x', 2]}), 'its early_stopping is no list of three'),
    'no optimiser': (_without('optimizer'), 'optimi'),
    'an optimiser of other weights': (
        _optimizer(lambda state: state | {'param_groups': state['param_groups'] * 2}),
        "can't be resumed, ValueError",
    ),
    'another optimiser': (_optimizer(_adams), "its optimiser is not the config's SGD (momentum"),
    'no schedules': (_without('param_schedulers'), 'schedule'),
}


@pytest.fixture
def saved(config: Path, outcome: Callable, tmp_path: Path) -> dict:
    """Return the content of a checkpoint that a training saved."""
    if SAVED:
        return copy.deepcopy(SAVED)
    ended = outcome('train', config, '--work-dir', tmp_path / 'saved', *_options('first', tmp_path))
    assert ended.code == 0, ended.said
    SAVED.update(torch.load(tmp_path / 'saved/iter_1.pth'))
    return copy.deepcopy(SAVED)


def _options(name: str, tmp_path: Path, *words: str) -> list[str]:
    # Runs of one name share their log.
    hook = ('type=AtomicCheckpointHook', 'by_epoch=False', 'interval=1')
    return [
        *('--cfg-options', f'experiment_name={tmp_path.name}_{name}'),
        *(f'default_hooks.checkpoint.{word}' for word in (*hook, *words)),
    ]


def _resume(outcome: Callable, config: Path, tmp_path: Path, content: Any) -> Any:
    """Save it and resume from it, for one iteration more."""
    path = tmp_path / 'a.pth'
    torch.save(content, path)
    options = [*_options('again', tmp_path), 'train_cfg.max_iters=2']
    return outcome('train', config, '--work-dir', tmp_path / 'run', '--resume', path, *options)


@pytest.mark.parametrize('case', CASES)
def test_refused(case: str, saved: dict, config: Path, outcome: Callable, tmp_path: Path) -> None:
    change, words = CASES[case]
    if case == 'no schedules':
        config.write_text(
            f"{config.read_text()}param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]\n"
        )
    before = {*tmp_path.rglob('*')}
    ended = _resume(outcome, config, tmp_path, change(saved))
    ended = ended._replace(written=[path for path in ended.written if path not in before])
    assert ended.refused(str(tmp_path / 'a.pth'), words), ended


def test_the_config_in_a_checkpoint_is_not_executed(
    saved: dict, config: Path, outcome: Callable, tmp_path: Path
) -> None:
    """MMEngine executes it when it resumes."""
    mark = tmp_path / 'mark'
    content = _meta(config=f"a = open({str(mark)!r}, 'w').close()\n")(saved)
    assert _resume(outcome, config, tmp_path, content).code == 0
    assert not mark.exists()


def test_checkpoints_of_other_names_are_found(config: Path, outcome: Callable, tmp_path: Path) -> None:
    run = (config, '--work-dir', tmp_path / 'run', '--resume')
    for name, iterations in (('first', 1), ('again', 2)):
        options = _options(name, tmp_path, 'filename_tmpl=ckpt_{}.pth')
        assert outcome('train', *run, *options, f'train_cfg.max_iters={iterations}').code == 0
    logs = ''.join(path.read_text() for path in (tmp_path / 'run').glob('*/*.log'))
    assert 'resumed epoch: 0, iter: 1' in logs
