"""Configs that can't be used end in one sentence. (A config is a program: run only those that you trust.)"""

from collections.abc import Callable
from pathlib import Path

import pytest

CASES: dict[str, tuple[str, str, str]] = {  # a text of the proper config, its replacement, words of the sentence
    'not Python': ("dict(type='OneWeight')", 'dict(', 'SyntaxError'),
    'leaves the program': ('param_scheduler = []', "exit('bye')", 'SystemExit'),
    'inherits what is not there': ('param_scheduler = []', "_base_ = './no.py'", './no.py'),
    'imports what is not there': ("['centermask']", "['no_such']", 'no_such'),
    'no model': ("model = dict(type='OneWeight')", '', "KeyError('model')"),
    'unknown model, near': ("'OneWeight'", "'OneWeigth'", 'model.type is OneWeigth, which is in no registry; did you'),
    'unknown model': ("'OneWeight'", "'XYZ'", 'The model of '),
    'unknown optimiser': (
        "'SGD'",
        "'Adaam'",
        'optim_wrapper.optimizer.type is Adaam, which is in no registry; did you ',
    ),
    'unknown hook': (
        'param_scheduler = []',
        "custom_hooks = [dict(type='XYZ')]",
        'XYZ is not in the mmdet::hook reg',
    ),
    'unknown argument': ('data_root=', 'rooot=', 'train_dataloader.dataset.rooot is no argument of CenterMaskCocoData'),
    'negative batch': ('batch_size=1', 'batch_size=-1', 'batch_size'),
    'negative learning rate': ('lr=0.1', 'lr=-1', 'Invalid learning rate: -1'),
    'loader of a wrong type': ('param_scheduler = []', 'train_dataloader = 7', "train_dataloader can't be 7: Runner"),
    'interval as text': (
        'param_scheduler = []',
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval='x'))",
        "default_hooks.checkpoint.interval can't be 'x': CheckpointHook takes int",
    ),
    'iterations as text': ('max_iters=1', "max_iters='9k'", "train_cfg.max_iters can't be '9k'"),
    'classes as text': ("('thing',)", "'thing'", "are the text 'thing'"),
    'no training data': ('param_scheduler = []', 'train_dataloader = None', 'train_dataloader'),
}


@pytest.mark.parametrize('case', CASES)
def test_refused(case: str, config: Path, outcome: Callable, tmp_path: Path) -> None:
    old, new, words = CASES[case]
    proper = config.read_text()
    assert old in proper
    config.write_text(proper.replace(old, new))
    assert outcome('train', config, '--work-dir', tmp_path / 'run').refused(str(config), words)
