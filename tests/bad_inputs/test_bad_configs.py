"""Configs: one that can't be used ends in a sentence. (A config is a program: run those alone that you trust.)"""

import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from centermask.engine import launch, runner

CASES: dict[str, tuple[Callable[[str], str], str]] = {  # the file by the proper one, words of the sentence
    'not Python': (lambda proper: proper + 'model = dict(', 'SyntaxError'),
    'prose': (lambda _: 'Dear reader, this is no config.', 'SyntaxError'),
    'binary': (lambda proper: proper + '\0', "can't be read"),
    'leaves the program': (lambda proper: proper + "exit('bye')\n", 'SystemExit'),
    'divides by zero': (lambda proper: proper + 'a = 1 / 0\n', 'ZeroDivisionError'),
    'inherits itself': (lambda proper: "_base_ = './config.py'\n" + proper, 'inherits itself'),
    'inherits what is not there': (lambda proper: "_base_ = './no.py'\n" + proper, './no.py'),
    'imports what is not there': (lambda proper: proper.replace("['centermask']", "['no_such']"), 'no_such'),
    'empty': (lambda _: '', 'model'),
    'no model': (lambda proper: proper.replace("model = dict(type='OneWeight')", ''), 'model'),
    'model of a wrong type': (lambda proper: proper.replace("dict(type='OneWeight')", '7'), 'model'),
    'unknown model': (lambda proper: proper.replace('OneWeight', 'TwoWeights'), 'TwoWeights is not in the'),
    'unknown data set': (lambda proper: proper.replace("'CenterMaskCocoDataset'", "'Cocoa'"), 'Cocoa is not in the'),
    'unknown transform': (lambda proper: proper.replace("'RoundResize'", "'Resise'"), 'Resise is not in the'),
    'unknown sampler': (lambda proper: proper.replace("'InfiniteSampler'", "'Endless'"), 'Endless is not in the'),
    'unknown optimiser': (
        lambda proper: proper.replace("'SGD'", "'Adaam'"),
        "optim_wrapper.optimizer.type can't be used: Adaam is not in the optimizer registry; did you mean Adam?",
    ),
    'unknown optimiser wrapper': (lambda proper: proper.replace("'OptimWrapper'", "'W'"), 'optim_wrapper.type can'),
    'unknown loop': (lambda proper: proper.replace("'IterBasedTrainLoop'", "'Loop'"), 'Loop is not in the'),
    'unknown hook': (
        lambda proper: proper + "custom_hooks = [dict(type='Crochet')]\n",
        "custom_hooks.0.type can't be used: Crochet is not in the hook registry: correct it, or import its module in",
    ),
    'unknown default hook': (
        lambda proper: proper + "default_hooks = dict(timer=dict(type='Crochet'))\n",
        "default_hooks.timer.type can't be used: Crochet is not in the hook registry",
    ),
    'unknown schedule': (
        lambda proper: proper + "param_scheduler = [dict(type='LinearRL')]\n",
        "param_scheduler.0.type can't be used: LinearRL is not in the parameter scheduler registry; did you mean ",
    ),
    'unknown argument': (lambda proper: proper.replace('data_root=', 'root='), 'root'),
    'negative batch': (lambda proper: proper.replace('batch_size=1', 'batch_size=-1'), 'batch_size'),
    'negative workers': (lambda proper: proper.replace('num_workers=0', 'num_workers=-1'), 'num_workers'),
    'negative learning rate': (lambda proper: proper.replace('lr=0.1', 'lr=-1'), 'Invalid learning rate: -1'),
    'negative max_pixels': (
        lambda proper: proper.replace('data_root=', 'max_pixels=-1, data_root='),
        'max_pixels is a',
    ),
    'no iterations': (lambda proper: proper.replace('max_iters=1', 'max_iters=0'), "train_cfg's max_iters is a whole"),
    'no interval': (lambda proper: proper.replace('max_iters=1', 'max_iters=1, val_interval=0'), 'val_interval is a'),
    'loader of a wrong type': (lambda proper: proper + 'train_dataloader = 7\n', 'train_dataloader is a dict, not 7'),
    'hooks of a wrong type': (lambda proper: proper + 'default_hooks = 7\n', 'default_hooks is a dict, not 7'),
    'scale without pixels': (
        lambda proper: proper.replace('(60, 40)', '(60, 0)'),
        "RoundResize's scale is two lengths",
    ),
    'classes as text': (lambda proper: proper.replace("('thing',)", "'thing'"), "are the text 'thing'"),
    'loop without data': (lambda proper: proper + 'train_dataloader = None\n', 'train_dataloader'),
}


def _write(case: str, config: Path) -> str:
    make, words = CASES[case]
    config.write_text(make(config.read_text()))
    return words


@pytest.mark.parametrize('case', CASES)
def test_refused(case: str, config: Path, outcome: Callable, tmp_path: Path) -> None:
    words = _write(case, config)
    assert outcome('train', config, '--work-dir', tmp_path / 'run').refused(str(config), words)


@pytest.mark.parametrize('case', CASES)
def test_without_the_guard_it_is_a_traceback(
    case: str, config: Path, outcome: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(case, config)
    for module in (launch, runner):
        monkeypatch.setattr(module, 'explained_model_errors', lambda source, part='': nullcontext())
    monkeypatch.setattr(runner, 'check_types', lambda cfg: None)
    monkeypatch.setattr(launch, '_require_end', lambda path: None)
    monkeypatch.setattr(launch, 'InputError', RuntimeError)  # what load_config raises is no sentence for the user then
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 250)  # what inherits itself does so for seconds otherwise
    try:
        ended = outcome('train', config, '--work-dir', tmp_path / 'run')
    except SystemExit:
        return
    finally:
        sys.setrecursionlimit(limit)
    assert ended.code == -1
