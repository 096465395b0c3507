"""Checkpoints: no code of them runs, and what isn't a model's weights is named."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import released_files as released
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmdet.visualization import get_palette
from torch import Tensor

from centermask.checkpoints import reading
from centermask.checkpoints.conversion import convert
from centermask.engine import inferencer
from centermask.utils.errors import InputError

NAME = 'layer.weight'
UNUSUAL = 'is a tensor of an unusual kind'


class _Call:
    """Pickled as a call that leaves a mark."""

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


def _repacked(path: Path) -> None:
    """With one of the parts missing."""
    _save(lambda weights: None)(path)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist() if not name.endswith('/data/0')}
    with zipfile.ZipFile(path, 'w') as file:
        for name, content in parts.items():
            file.writestr(name, content)


CASES: dict[str, tuple[str, Callable[[Path], Any], str]] = {  # name of the file, how it is written, words
    'nothing': ('a.pth', lambda path: path.write_bytes(b''), 'is truncated or no checkpoint'),
    'text': ('a.pth', lambda path: path.write_text('<html>Sign in</html>'), 'is truncated or no checkpoint'),
    'truncated': ('a.pth', _damaged(lambda content: content[: len(content) // 2]), 'is truncated or no checkpoint'),
    'without its end': ('a.pth', _damaged(lambda content: content[:-30]), 'is truncated or no checkpoint'),
    'a part missing': ('a.pth', _repacked, 'is truncated or no checkpoint'),
    'a call of the system': (
        'a.pth',
        lambda path: torch.save({NAME: _Call(os.system, f'touch {path}.mark')}, path),
        'holds a posix.system, which no checkpoint needs',
    ),
    'a call within a list': (
        'a.pth',
        lambda path: torch.save({'meta': [[_Call(eval, f'open("{path}.mark", "w")')]]}, path),
        'which no checkpoint needs',
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
    'arrays of objects': (
        'a.pkl',
        lambda path: path.write_bytes(pickle.dumps({'model': {NAME: np.array([{}], object)}})),
        'holds no weights',
    ),
    'no weights': ('a.pth', lambda path: torch.save({'epoch': 3}, path), 'holds no weights'),
    'a list': ('a.pth', lambda path: torch.save([torch.ones(1)], path), 'holds no weights'),
    'meta of a number': (
        'a.pth',
        _save(lambda weights: {'state_dict': weights, 'meta': 5}),
        'its meta is 5 and no dict',
    ),
    'NaN': ('a.pth', _tensor(torch.tensor([[torch.nan]])), f'{NAME} holds NaN or infinity'),
    'infinity': ('a.pth', _tensor(torch.tensor([[torch.inf]])), f'{NAME} holds NaN or infinity'),
    'NaN in half precision': ('a.pth', _tensor(torch.tensor([[torch.nan]]).half()), f'{NAME} holds NaN or infinity'),
    'whole numbers': ('a.pth', _tensor(torch.ones(1, 1, dtype=torch.int64)), f'{NAME} is of whole numbers'),
    'truth values': ('a.pth', _tensor(torch.ones(1, 1, dtype=torch.bool)), f'{NAME} is of whole numbers'),
    'complex numbers': ('a.pth', _tensor(torch.ones(1, 1, dtype=torch.complex64)), UNUSUAL),
    'sparse': ('a.pth', _tensor(torch.eye(1).to_sparse()), UNUSUAL),
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


@pytest.mark.parametrize('case', CASES)
def test_without_the_guard_it_is_loaded_or_a_traceback(case: str, tmp_path: Path) -> None:
    """pickle runs the calls, torch takes any tensor, and a model any that fits by name and shape."""
    name, write, words = CASES[case]
    path = tmp_path / name
    write(path)
    model = MODELS.build(dict(type='OneWeight'))
    try:
        content = pickle.loads(path.read_bytes()) if name.endswith('.pkl') else torch.load(path)
        if case == 'a petabyte claimed':
            assert content[NAME].numel() == 10**15  # whatever is computed on it takes the memory
            return
        model.load_state_dict(content, strict=False)
    except Exception as error:
        assert words not in str(error)
    else:
        assert case != 'nothing'


NAMED = {'classes': ('a', 'b'), 'palette': [(1, 2, 3), (4, 5, 6)]}
USABLE: dict[str, tuple[Any, dict | None]] = {  # what a file says of its data, what is used of it
    'as it should be': (NAMED, NAMED),
    'in capitals': ({'CLASSES': ('a', 'b')}, {'classes': ('a', 'b')}),
    'a number': (7, None),
    'names of a number': ({'classes': 7}, None),
    'names that are numbers': ({'classes': (1, 2)}, None),
    'too few names': ({'classes': ('a',)}, None),
    'too many names': ({'classes': ('a', 'b', 'c')}, None),
    'a key that is a number': ({**NAMED, 5: 6}, None),
    'too few colours': ({**NAMED, 'palette': [(1, 2, 3)]}, {'classes': ('a', 'b')}),
    'colours of text': ({**NAMED, 'palette': ['x', 'y']}, {'classes': ('a', 'b')}),
    'colours beyond white': ({**NAMED, 'palette': [(999, 0, 0)] * 2}, {'classes': ('a', 'b')}),
    'an unknown colour': ({**NAMED, 'palette': 'octarine'}, {'classes': ('a', 'b')}),
}


@pytest.mark.parametrize('case', USABLE)
def test_names_of_classes(case: str) -> None:
    """Of the prediction's classes and colours, an image's first detection of the second class is named by them."""
    given_by_file, used = USABLE[case]
    assert inferencer._usable(given_by_file, 2) == used


@pytest.mark.parametrize('case', list(USABLE)[2:])
def test_without_the_guard_names_are_missing_or_wrong(case: str) -> None:
    """As MMDetection takes them from a file, and as pictures and results need them."""
    metainfo = USABLE[case][0]
    try:
        lower = {key.lower(): value for key, value in metainfo.items()}
        name, colours = lower['classes'][1], get_palette(lower.get('palette'), 2)
        assert min(colours[1]) >= 0 and max(colours[0]) <= 255 and isinstance(name, str)
    except Exception:
        return
    assert case == 'too many names'


@settings(
    max_examples=int(os.environ.get('FUZZ_EXAMPLES', 150)),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(at=st.integers(0, 4000), patch=st.binary(min_size=1, max_size=40), keep=st.floats(0.2, 1))
def test_any_damage(at: int, patch: bytes, keep: float, tmp_path: Path) -> None:
    """Overwritten anywhere and cut anywhere, a file is read or refused in one sentence."""
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


models_built_once = released.models_built_once
CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
KEPT = 'roi_heads.mask_head.predictor.bias'
RELEASES: dict[str, tuple[str, str, released.Shapes]] = {  # name of the file, entry of the weights, shapes
    'star': ('a.pth', 'model', released.lite_star()),
    'paper': ('a.pth', 'model', released.paper(released.mobilenetv2(), (32, 96, 320), lite=True, scoring=False)),
    'VoVNet': ('a.pth', '', released.vovnet('19-slim')),
    'Detectron2': ('a.pkl', 'model', released.resnet_star(50, statistics=False)),
    'Caffe2': ('a.pkl', 'blobs', released.resnet_caffe2(50)),
}
TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e5m2)
# Their configs; the converter builds the models of all that there are.
NEEDED = (
    'centermask-lite-star_v2-19-slim_fpn_4x_coco',
    'centermask-lite_mobilenetv2_fpn_4x_coco',
    'centermask-star_r50_fpn_3x_coco',
)
# What may be done to a tensor.
CHANGES: dict[str, Callable[[Tensor], Any]] = {
    'flat': lambda tensor: tensor.flatten(),
    'one more dimension': lambda tensor: tensor[None],
    'turned': lambda tensor: tensor.permute(*reversed(range(tensor.dim()))),
    'twice as long': lambda tensor: torch.cat([tensor[None], tensor[None]]).flatten(0, 1) if tensor.dim() else tensor,
    'a scalar': lambda _: torch.zeros(()),
    'empty': lambda _: torch.zeros(0),
    'no rows': lambda tensor: tensor[:0] if tensor.dim() else tensor,
    'NaN': lambda _: torch.tensor([torch.nan]),
    'sparse': lambda _: torch.eye(2).to_sparse(),
    'without memory': lambda tensor: tensor.to('meta'),
    'a list': lambda tensor: [tensor],
    'a dict': lambda tensor: {'weight': tensor},
    'an array': lambda tensor: tensor.numpy(),
    'an array of objects': lambda _: np.array([{}], object),
    'a number': lambda _: 7,
    'text': lambda _: 'weight',
    'nothing': lambda _: None,
    **{str(dtype): lambda tensor, dtype=dtype: tensor.to(dtype) for dtype in TYPES},
}
# What may be made of a dict of weights.
WRAPPED: dict[str, Callable[[dict], Any]] = {
    'bare': lambda weights: weights,
    **{f'under {name}': lambda weights, name=name: {name: weights} for name in ('model', 'state_dict', 'blobs', 'ema')},
    'under both': lambda weights: {'model': weights, 'state_dict': weights},
    'twice': lambda weights: {'model': {'model': weights}},
    'a list': lambda weights: [weights],
    'pairs': lambda weights: {'model': list(weights.items())},
    'with odd entries': lambda weights: {'model': weights, 'meta': 7, 'released': [], 3: None, None: {}},
    'ours, with odd entries': lambda weights: {'state_dict': weights, 'meta': [], 'released': 'text'},
    'ours, with odd names': lambda weights: {
        'state_dict': weights,
        'meta': {'dataset_meta': {'classes': 7}, 'config': '../../x'},
        'released': {'layout': 'star', 'names': {name: name for name in weights}, 'kept': 3},
    },
}
NAMES = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.sampled_from(['module.a', 'a.weight', KEPT, '']))


@pytest.fixture
def configs(models_built_once: None, tmp_path: Path) -> Path:
    """A folder of those configs."""
    folder = tmp_path / 'configs'
    folder.mkdir()
    (folder / 'metafile.yml').symlink_to(CONFIGS / 'metafile.yml')
    for name in NEEDED:
        (folder / f'{name}.py').write_text(f'_base_ = {str(CONFIGS / name)!r} + ".py"\n')
    return folder


@pytest.fixture
def ours(configs: Path) -> dict:
    """What a release is converted to."""
    contents = reading.Contents(released.empty(released.lite_star()), 'model', {})
    return convert(contents, 'a.pth', configs).checkpoint


@settings(
    max_examples=int(os.environ.get('FUZZ_EXAMPLES', 120)),
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to print the fixtures of each smaller example would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    release=st.sampled_from([*RELEASES, 'ours']),
    wrapped=st.none() | st.sampled_from([*WRAPPED]),
    changes=st.lists(
        st.tuples(st.integers(0, 999), st.sampled_from([*CHANGES, 'renamed', 'removed', 'moved']), NAMES), max_size=3
    ),
    options=st.sampled_from([[], [], [], ['--to', 'star'], ['--to', 'paper'], ['--keep-classes', 'person', 'dog']]),
)
def test_any_content_converted(
    release: str,
    wrapped: str | None,
    changes: list[tuple[int, str, Any]],
    options: list[str],
    ours: dict,
    configs: Path,
    tools: Callable,
    outcome: Callable,
    tmp_path: Path,
) -> None:
    """Whatever a file holds, it is converted to one that can be read, or refused and nothing is written."""
    if release == 'ours':
        name, content = 'a.pth', {**ours, 'state_dict': dict(ours['state_dict'])}
        weights = content['state_dict']
    else:
        name, entry, shapes = RELEASES[release]
        weights = released.empty(shapes)
        content = {entry: weights, 'iteration': 3} if entry else weights
    for place, change, new_name in changes:
        key = [*weights][place % len(weights)]
        tensor = weights[key]
        if change in CHANGES:
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                weights[key] = CHANGES[change](tensor)
        else:
            del weights[key]
            if change != 'removed':
                weights[new_name if change == 'renamed' else f'{key}.{new_name}'] = tensor
    content = WRAPPED[wrapped](weights) if wrapped else content
    out = tmp_path / 'out'
    main = tools('convert_checkpoint')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, 'load', lambda *_, **__: content)
        patch.setattr(reading, '_read_arrays', lambda *args: content)
        (tmp_path / name).touch()
        patch.setitem(main.__globals__, 'CONFIGS', configs)
        ended = outcome(main, tmp_path / name, out / 'b.pth', *options)
    if ended.code == 2:
        assert not ended.written and ended.said.startswith('error: ')
    else:
        assert ended.code == 0 and out / 'b.pth' in ended.written
        assert reading.read(str(out / 'b.pth')).weights
        shutil.rmtree(out)
