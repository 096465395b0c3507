"""Dumps of steps that were left out: they name no code, and what isn't in them as it should be is no traceback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from centermask.engine import replay
from centermask.utils.errors import InputError

MARK = {'type': 'subprocess.getoutput', 'cmd': 'touch {}'}
SAMPLE = {'kind': 'DetDataSample', 'metainfo': {'img_shape': (8, 8), 'img_path': 'a.png'}, 'fields': {}}
IS_NONE = 'is no dump of a step that was left out'

CODE: dict[str, tuple[Any, str]] = {  # model, words
    'a function': (MARK, "type='subprocess.getoutput', which is not of MMDetection"),
    'one within': ({'type': 'SingleStageDetector', 'backbone': MARK}, "type='subprocess.getoutput'"),
}
CASES: dict[str, tuple[dict, str]] = {  # what the dump has otherwise, words
    **{case: ({'model': model}, words) for case, (model, words) in CODE.items()},
    'code in a list': ({'model': {'type': 'OneWeight', 'parts': [(MARK,)]}}, "type='subprocess.getoutput'"),
    'code for an operator': ({'model': {'type': 'OneWeight', 'nms': {'type': '[].append'}}}, "type='[].append'"),
    'a package': ({'model': {'type': 'OneWeight', '_scope_': 'own'}}, "_scope_='own'"),
    'a config': ({'model': {'type': 'OneWeight', 'teacher_config': 'a.py'}}, "teacher_config='a.py'"),
    'a type without a name': ({'model': {'type': 5}}, 'type=5'),
    'an unknown argument': ({'model': {'type': 'OneWeight', 'a': 1}}, "can't be built"),
    'a model of text': ({'model': 'OneWeight'}, "can't be built"),
    'weights of text': ({'weights': {'layer.weight': 'x', 'layer.bias': torch.ones(1)}}, IS_NONE),
    'no weights': ({'weights': None}, IS_NONE),
    'another shape': ({'weights': {'layer.weight': torch.ones(2, 1), 'layer.bias': torch.ones(1)}}, '(2, 1) in the'),
    'a function as precision': ({'autocast': 'load'}, IS_NONE),
    'a key of one number': ({'key': 5}, IS_NONE),
    'a key of text': ({'key': 'abc'}, IS_NONE),
    'a batch of nothing': ({'batches': [{}]}, IS_NONE),
    'samples of another kind': ({'batches': [{'inputs': [], 'samples': [{'kind': 'os'}]}]}, IS_NONE),
}


def _dump(mark: Path, changes: dict) -> dict:
    """A dump with these changes, in which code would make the file ``mark``."""

    def place(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: place(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return type(node)(map(place, node))
        return node.format(mark) if isinstance(node, str) else node

    weights = {'layer.weight': torch.ones(1, 1), 'layer.bias': torch.ones(1)}
    batch = {'inputs': [torch.zeros(3, 8, 8)], 'samples': [SAMPLE]}
    parts = {'model': {'type': 'OneWeight'}, 'weights': weights, 'autocast': None, 'key': (0, 0, 0)}
    return place({**parts, 'iteration': 1, 'batches': [batch], **changes})


def test_a_proper_one_is_computed(outcome: Callable, tmp_path: Path) -> None:
    torch.save(_dump(tmp_path / 'mark', {}), tmp_path / 'a.pth')
    assert outcome('replay', tmp_path / 'a.pth').code == 0


@pytest.mark.parametrize('case', CASES)
def test_refused(case: str, outcome: Callable, tmp_path: Path) -> None:
    changes, words = CASES[case]
    path = tmp_path / 'a.pth'
    torch.save(_dump(tmp_path / 'mark', changes), path)
    ended = outcome('replay', path)
    assert ended.refused(str(path), words), ended


@pytest.mark.parametrize('case', CASES)
def test_without_the_guard_it_runs_or_is_a_traceback(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, '_require_known', lambda *_: None)
    changes, words = CASES[case]
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own/registry.py').write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    dump = _dump(tmp_path / 'mark', changes)
    if case == 'a package':
        assert replay._compute(dump, 'a.pth', 'cpu', print)
        assert (tmp_path / 'mark').exists()
        return
    with pytest.raises(Exception) as error:
        replay._compute(dump, 'a.pth', 'cpu', print)
    if case in CODE:
        assert (tmp_path / 'mark').exists()
    elif words == IS_NONE:
        assert not isinstance(error.value, InputError)
    else:
        assert case in ('an unknown argument', 'a model of text', 'another shape') or words not in str(error.value)
