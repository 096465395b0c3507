"""Reading of all kinds of files, without running code from them."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from centermask.checkpoints.reading import read
from centermask.utils.errors import InputError

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def _pickled(path: Path, content: object, protocol: int = 2) -> str:
    path.write_bytes(pickle.dumps(content, protocol))
    return str(path)


@pytest.mark.parametrize(('dtype', 'protocol'), [('<f4', 0), ('>f4', 2), ('<f2', 4), ('>f8', 5), ('u1', 3)])
def test_arrays(dtype: str, protocol: int, tmp_path: Path) -> None:
    arrays = {'a': ARRAY.astype(dtype), 'transposed': ARRAY.astype(dtype).T, 'number': np.array(3, dtype)}
    weights = read(_pickled(tmp_path / 'a.pkl', arrays, protocol)).weights
    assert list(weights) == list(arrays)
    for name, array in arrays.items():
        assert weights[name].numpy().dtype == array.dtype.newbyteorder('=')
        assert np.array_equal(weights[name].numpy(), array)
        weights[name].add_(1)  # not the file's read-only bytes


@pytest.mark.parametrize(
    ('wrap', 'entry', 'others'),
    [
        (lambda w: w, '', []),
        (lambda w: {'model': w, '__author__': 'Caffe2'}, 'model', ['__author__']),
        (lambda w: {'blobs': OrderedDict(w), 'cfg': 'TRAIN: ...'}, 'blobs', ['cfg']),
    ],
)
def test_entries(wrap: Callable, entry: str, others: list[str], tmp_path: Path) -> None:
    contents = read(_pickled(tmp_path / 'a.pkl', wrap({'w': ARRAY, 'b': ARRAY})))
    assert (list(contents.weights), contents.entry, list(contents.others)) == (['w', 'b'], entry, others)


def test_python_2_wrote_it(tmp_path: Path) -> None:
    """Pickles of Python 2 hold arrays' bytes as text and name NumPy's module of that time."""
    data = ARRAY.tobytes()
    content = (
        b'\x80\x02}U\x07conv1_w'
        b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R'
        b'(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
        b'\x89U' + bytes([len(data)]) + data + b'tbs.'
    )
    (tmp_path / 'a.pkl').write_bytes(content)
    assert np.array_equal(read(str(tmp_path / 'a.pkl')).weights['conv1_w'].numpy(), ARRAY)


def test_torch_1_5_wrote_it(tmp_path: Path) -> None:
    """Files of torch 1.5, with which both releases were written, are not archives yet."""
    content = {
        'model': OrderedDict(w=torch.ones(2), b=torch.ones(2, dtype=torch.float16)),
        'scheduler': {'milestones': [1]},
    }
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    contents = read(str(tmp_path / 'a.pth'))
    assert {name: tensor.dtype for name, tensor in contents.weights.items()} == {'w': torch.float32, 'b': torch.float16}
    assert contents.others == {'scheduler': {'milestones': [1]}}


class _Call:
    """An object whose pickle is a call."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def _hostile(path: Path) -> list[tuple[object, str]]:
    """Return objects that would create a file, and the first name in them that is refused."""
    code = f'open({str(path)!r}, "w")'
    return [
        (_Call(os.system, f'touch {path}'), 'posix.system'),
        (_Call(eval, code), 'builtins.eval'),
        (_Call(open, str(path), 'w'), f'{open.__module__}.open'),
        (_Call(getattr, np.ndarray, 'tofile'), 'builtins.getattr'),
        (_Call(np.save, str(path), 1), 'numpy.save'),
        (np.array([_Call(os.system, f'touch {path}')]), 'posix.system'),
        (OrderedDict(a=_Call(os.mkdir, str(path))), 'posix.mkdir'),
    ]


@pytest.mark.parametrize('kind', ['pkl', 'pth', 'pth of torch 1.5'])
@pytest.mark.parametrize('case', range(7))
def test_nothing_runs(kind: str, case: int, tmp_path: Path) -> None:
    suffix = kind[:3]
    mark, source = tmp_path / 'mark', tmp_path / f'a.{suffix}'
    thing, refused = _hostile(mark)[case]
    content = {'model': {'stem.conv1.weight': ARRAY if suffix == 'pkl' else torch.ones(1), 'b': thing}}
    if suffix == 'pkl':
        _pickled(source, content, protocol=4)
    else:
        torch.save(content, source, _use_new_zipfile_serialization=kind == 'pth')
    with pytest.raises(InputError) as error:
        read(str(source))
    assert not mark.exists()
    assert str(error.value).startswith(f'The checkpoint {source} ')
    if suffix == 'pkl':
        assert f'holds a {refused}, which no checkpoint needs' in str(error.value)


def test_nothing_runs_of_other_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine's own loaders would, in the onedl fork and of some short forms."""
    torch.save({'model': {'w': torch.ones(1), 'b': _Call(os.mkdir, str(tmp_path / 'mark'))}}, tmp_path / 'a.pth')
    monkeypatch.setattr('mmengine.fileio.get', lambda source: (tmp_path / 'a.pth').read_bytes())
    with pytest.raises(
        InputError, match=r'^The checkpoint s3://b/a\.pth holds a posix\.mkdir, which no checkpoint needs'
    ):
        read('s3://b/a.pth')
    assert not (tmp_path / 'mark').exists()
    torch.save({'model': {'w': torch.ones(1)}}, tmp_path / 'a.pth')
    assert read('s3://b/a.pth').weights['w'].item() == 1


@pytest.mark.parametrize('source', ['open-mmlab://nothing', 'nowhere://a.pth'])
def test_names_that_nobody_knows(source: str) -> None:
    with pytest.raises(InputError, match=r"can't be fetched \(nothing is known by this name\): give the path of a"):
        read(source)


def test_bare_pickles_in_disguise(tmp_path: Path) -> None:
    """A bare pickle is refused under any name."""
    mark = tmp_path / 'mark'
    for name in ('a.pth', 'a.pt', 'a.bin', 'a.PKL'):
        with pytest.raises(InputError):
            read(_pickled(tmp_path / name, _Call(os.system, f'touch {mark}')))
        assert not mark.exists()


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('a.pth', b'', 'is truncated or no checkpoint at all'),
        ('a.pth', b'<html>Sign in to download</html>', 'is truncated or no checkpoint at all'),
        ('a.pkl', pickle.dumps({'a': ARRAY}, 2)[:-40], 'is truncated or no checkpoint at all'),
        ('a.pkl', pickle.dumps([ARRAY], 2), 'holds no weights'),
        ('a.pkl', pickle.dumps({'a': 'text', 'b': np.array(['x'], object)}, 2), 'holds no weights'),
    ],
    ids=['empty', 'text', 'truncated', 'list', 'no arrays'],
)
def test_bad_files(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(str(path))
    assert str(error.value) == f'The checkpoint {path} {words}: give the path of a checkpoint.'


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.pth doesn't exist: give the path"):
        read(str(tmp_path / 'a.pth'))
    with pytest.raises(InputError, match='is a folder'):
        read(str(tmp_path))


def test_entries_that_are_no_tensors_are_kept_apart(tmp_path: Path) -> None:
    content = {'model': {'w': ARRAY, 'text': 'x', 'objects': np.array(['x'], object)}, 'iteration': 3}
    contents = read(_pickled(tmp_path / 'a.pkl', content))
    assert list(contents.weights) == ['w'] and set(contents.others) == {'text', 'objects', 'iteration'}
