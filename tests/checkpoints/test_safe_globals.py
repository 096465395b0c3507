"""torch's safe loader accepts MMEngine's checkpoints and still refuses everything else."""

import zipfile
from argparse import Namespace
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

import centermask  # noqa: F401


def test_history_buffer(tmp_path: Path) -> None:
    buffer = HistoryBuffer()
    for value in (3.0, 1.0, 2.0):
        buffer.update(value)
    torch.save({'loss': buffer}, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)['loss']
    assert loaded.data[0].tolist() == [3.0, 1.0, 2.0]
    assert [loaded.statistics(name) for name in ('min', 'max', 'mean', 'current')] == [1.0, 3.0, 2.0, 2.0]


@pytest.mark.parametrize('kind', ['bool', 'int64', 'float32'])
def test_numpy_numbers(kind: str, tmp_path: Path) -> None:
    values = {'scalar': np.dtype(kind).type(1), 'array': np.ones((2, 3), kind)}
    torch.save(values, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert loaded['scalar'] == 1 and loaded['scalar'].dtype == kind
    assert np.array_equal(loaded['array'], values['array']) and loaded['array'].dtype == kind


@pytest.mark.parametrize('core', [b'numpy.core', b'numpy._core'])
def test_names_of_numpy_1_and_2(core: bytes, tmp_path: Path) -> None:
    torch.save({'a': np.arange(3.0), 'b': np.float64(2)}, tmp_path / 'a.pth')
    with zipfile.ZipFile(tmp_path / 'a.pth') as source, zipfile.ZipFile(tmp_path / 'b.pth', 'w') as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith('data.pkl'):
                content = content.replace(b'numpy._core', b'numpy.core').replace(b'numpy.core', core)
                assert core + b'.multiarray' in content
            target.writestr(name, content)
    loaded = torch.load(tmp_path / 'b.pth', weights_only=True)
    assert loaded['a'].tolist() == [0, 1, 2] and loaded['b'] == 2


class _Calls:
    """An object whose pickle is a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    'dangerous',
    [
        _Calls(getattr, HistoryBuffer, '__init__'),
        _Calls(getattr, HistoryBuffer.__init__, '__globals__'),
        _Calls(getattr, np.ndarray, 'min'),
        _Calls(print, 'ran'),
        Namespace(a=1),
        np.array([None]),
    ],
)
def test_refuses_the_rest(dangerous: object, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({'x': dangerous}, tmp_path / 'a.pth')
    with pytest.raises(UnpicklingError):
        torch.load(tmp_path / 'a.pth', weights_only=True)
    assert 'ran' not in capsys.readouterr().out


def test_checkpoint_of_a_training(tiny_run: Path) -> None:
    checkpoint = torch.load(tiny_run / 'iter_2.pth', weights_only=True)
    scalars = checkpoint['message_hub']['log_scalars']
    assert isinstance(scalars['train/loss_mask_iou'], HistoryBuffer)
    assert checkpoint['meta']['iter'] == 2
