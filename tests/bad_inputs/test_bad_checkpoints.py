"""Bad checkpoints: no code from them is run, and the message names the cause."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from centermask.checkpoints import reading
from centermask.engine.inferencer import class_names
from centermask.utils.errors import InputError

NAME = 'layer.weight'


class _Call:
    """Pickled as a call that creates a file."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.what = function, arguments

    def __reduce__(self) -> tuple:
        return self.what


def _save(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        weights = {NAME: torch.ones(1, 1), 'layer.bias': torch.ones(1)}
        torch.save(change(weights) or weights, path)

    return write


def _tensor(tensor: Tensor) -> Callable[[Path], None]:
    return _save(lambda weights: weights.update({NAME: tensor}))


def _damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        _save(lambda weights: None)(path)
        path.write_bytes(change(path.read_bytes()))

    return write


CASES: dict[str, tuple[str, Callable[[Path], Any], str]] = {  # name of the file, its writer, words of the message
    'text': ('a.pth', lambda path: path.write_text('<html>Sign in</html>'), 'is truncated or no checkpoint'),
    'truncated': ('a.pth', _damaged(lambda content: content[: len(content) // 2]), 'is truncated or no checkpoint'),
    'a call of the system': (
        'a.pth',
        lambda path: torch.save({NAME: _Call(os.system, f'touch {path}.mark')}, path),
        'holds a posix.system, which no checkpoint needs',
    ),
    'a bare pickle': (
        'a.pth',
        lambda path: path.write_bytes(pickle.dumps({NAME: _Call(os.system, f'touch {path}.mark')})),
        'checkpoint',
    ),
    'a pickle of arrays with a call': (
        'a.pkl',
        lambda path: path.write_bytes(pickle.dumps({'model': {NAME: np.ones(1), 'b': _Call(os.system, 'true')}})),
        'holds a posix.system, which no checkpoint needs',
    ),
    'no weights': ('a.pth', lambda path: torch.save({'epoch': 3}, path), 'holds no weights'),
    'meta of a number': (
        'a.pth',
        _save(lambda weights: {'state_dict': weights, 'meta': 5}),
        'its meta is 5 and no dict',
    ),
    'NaN': ('a.pth', _tensor(torch.tensor([[torch.nan]])), f'{NAME} holds NaN or infinity'),
    'integers': ('a.pth', _tensor(torch.ones(1, 1, dtype=torch.int64)), f'{NAME} is of integers'),
    'sparse': ('a.pth', _tensor(torch.eye(1).to_sparse()), 'is a tensor of an unusual kind'),
    'a petabyte claimed': ('a.pth', _tensor(torch.ones(1).expand(10**9, 10**6)), 'claims a shape of (1000000000, '),
    'another shape': ('a.pth', _tensor(torch.ones(3, 1)), f'{NAME} is (3, 1) in the file and (1, 1) in the model'),
    'a weight missing': ('a.pth', _save(lambda weights: weights.pop(NAME) and None), f'{NAME} is absent in the file'),
    'a weight too many': ('a.pth', _save(lambda weights: weights.update(x=torch.ones(1))), 'x is (1,) in the file'),
}


@pytest.mark.parametrize('case', CASES)
def test_refused(case: str, config: Path, outcome: Callable, tmp_path: Path) -> None:
    name, write, words = CASES[case]
    path = tmp_path / name
    write(path)
    ended = outcome('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', f'load_from={path}')
    assert ended.refused(str(path), words)
    assert not list(tmp_path.glob('*.mark'))


@pytest.mark.parametrize(
    ('metainfo', 'names'),
    [
        ({'classes': ['a', 'b'], 'palette': 7}, ('a', 'b')),
        ({'CLASSES': ('a', 'b')}, ('a', 'b')),
        (7, None),
        ({'classes': 7}, None),
        ({'classes': ('a', 2)}, None),
        ({'classes': ('a',)}, None),
    ],
)
def test_names_of_classes(metainfo: Any, names: tuple | None) -> None:
    assert class_names(metainfo, 2) == names


@settings(
    max_examples=int(os.environ.get('FUZZ_EXAMPLES', 150)),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(at=st.integers(0, 4000), patch=st.binary(min_size=1, max_size=40), keep=st.floats(0.2, 1))
def test_any_damage(at: int, patch: bytes, keep: float, tmp_path: Path) -> None:
    """A file that is overwritten or cut anywhere is read, or refused in one sentence."""
    path = tmp_path / 'a.pth'
    _save(lambda weights: None)(path)
    content = path.read_bytes()
    at %= len(content)
    path.write_bytes((content[:at] + patch + content[at + len(patch) :])[: int(len(content) * keep) + 1])
    try:
        contents = reading.read(str(path))
    except InputError as error:
        assert '\n' not in str(error) and str(path) in str(error)
    else:
        assert all(isinstance(tensor, Tensor) for tensor in contents.weights.values())
