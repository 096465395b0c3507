"""Exported files: refused when they are opened, before anything is run on an image."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centermask.export import metadata
from centermask.export.runtime import ExportedModel
from centermask.utils.errors import InputError

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
PROPER = metadata.Metadata(
    recipe='star',
    version='1',
    classes=['thing'],
    mean=[0.0, 0.0, 0.0],
    std=[1.0, 1.0, 1.0],
    divisor=32,
    scale=[60, 40],
    resize='RoundResize',
    preprocess=False,
    full_masks=False,
    detections=0,
    pasting='sampled',
    mask_threshold=0.5,
).strings()


def _model(strings: dict[str, str], operator: str = 'Identity', domain: str = '', version: int = 17) -> onnx.ModelProto:
    node = helper.make_node(operator, ['images'], ['boxes'], domain=domain)
    tensors = [helper.make_tensor_value_info(name, FLOAT, [1, 3, 'h', 'w']) for name in ('images', 'boxes')]
    graph = helper.make_graph([node], 'graph', tensors[:1], tensors[1:])
    operators = [helper.make_opsetid('', version), helper.make_opsetid('own', 1)]
    model = helper.make_model(graph, opset_imports=operators, ir_version=9)
    helper.set_model_props(model, strings)
    return model


def _outside(folder: Path) -> bytes:
    """A weight that lies in another file, of all there are."""
    model = _model(PROPER)
    weight = onnx.TensorProto(name='w', data_type=FLOAT, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {'location': '../../../../../../etc/passwd', 'offset': '0', 'length': '16'}.items():
        weight.external_data.add(key=key, value=value)
    model.graph.initializer.append(weight)
    model.graph.node.append(helper.make_node('Identity', ['w'], ['v']))
    model.graph.output.append(helper.make_tensor_value_info('v', FLOAT, [4]))
    return model.SerializeToString()


CASES: dict[str, tuple[str, Callable[[Path], bytes]]] = {  # name of the file, content
    'nothing': ('a.onnx', lambda _: b''),
    'text': ('a.onnx', lambda _: b'<html>Sign in to download</html>'),
    'truncated': ('a.onnx', lambda _: _model(PROPER).SerializeToString()[:60]),
    'random': ('a.onnx', lambda _: bytes(range(256)) * 9),
    'no metadata': ('a.onnx', lambda _: _model({}).SerializeToString()),
    'part of the metadata': ('a.onnx', lambda _: _model({'recipe': '"star"'}).SerializeToString()),
    'metadata that are not JSON': ('a.onnx', lambda _: _model({**PROPER, 'classes': '[['}).SerializeToString()),
    'unknown operator': ('a.onnx', lambda _: _model(PROPER, 'Explode').SerializeToString()),
    'operator of another library': ('a.onnx', lambda _: _model(PROPER, 'Call', 'own').SerializeToString()),
    'operators of the future': ('a.onnx', lambda _: _model(PROPER, version=999).SerializeToString()),
    'weights in a file of ours': ('a.onnx', _outside),
}
OTHER = {'other inputs and outputs': ('a.onnx', lambda _: _model(PROPER).SerializeToString())}


def _openvino(folder: Path, strings: dict[str, str]) -> tuple[bytes, bytes]:
    """What OpenVINO's two files hold, of a model with a weight."""
    openvino = pytest.importorskip('openvino')
    model = _model({})
    model.graph.initializer.append(helper.make_tensor('w', FLOAT, [64], [1.0] * 64))
    model.graph.node.append(helper.make_node('Identity', ['w'], ['v']))
    model.graph.output.append(helper.make_tensor_value_info('v', FLOAT, [64]))
    onnx.save(model, folder / 'source.onnx')
    converted = openvino.convert_model(folder / 'source.onnx')
    for key, value in strings.items():
        converted.set_rt_info(value, ['centermask', key])
    openvino.save_model(converted, folder / 'source.xml', compress_to_fp16=False)
    parts = [(folder / f'source.{suffix}').read_bytes() for suffix in ('xml', 'bin')]
    for suffix in ('onnx', 'xml', 'bin'):
        (folder / f'source.{suffix}').unlink()
    return parts[0], parts[1]


OPENVINO: dict[str, tuple[dict[str, str], Callable[[bytes, bytes], tuple[bytes, bytes | None]], str]] = {
    'no .bin': (PROPER, lambda xml, weights: (xml, None), 'is damaged or no model'),
    'truncated .bin': (PROPER, lambda xml, weights: (xml, weights[:16]), 'is damaged or no model'),
    'truncated .xml': (PROPER, lambda xml, weights: (xml[: len(xml) // 2], weights), 'is damaged or no model'),
    'text': (PROPER, lambda xml, weights: (b'<html>Sign in to download</html>', weights), 'is damaged or no model'),
    'no metadata': ({}, lambda xml, weights: (xml, weights), "doesn't say what its model needs"),
    'other inputs and outputs': (PROPER, lambda xml, weights: (xml, weights), 'takes images and gives boxes, v,'),
}


@pytest.mark.parametrize('case', {**CASES, **OTHER})
def test_refused(case: str, tmp_path: Path) -> None:
    name, make = {**CASES, **OTHER}[case]
    path = tmp_path / name
    path.write_bytes(make(tmp_path))
    with pytest.raises(InputError) as error:
        ExportedModel(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('tool', ['predict', 'test'])
@pytest.mark.parametrize('case', {**CASES, **OTHER})
def test_refused_by_a_command(
    case: str, tool: str, data: Path, config: Path, tmp_path: Path, outcome: Callable
) -> None:
    name, make = {**CASES, **OTHER}[case]
    path = tmp_path / name
    path.write_bytes(make(tmp_path))
    result = _call(outcome, tool, data, config, path)
    assert result.refused(str(path)), result


@pytest.mark.parametrize('tool', ['predict', 'test'])
@pytest.mark.parametrize('case', OPENVINO)
def test_openvino_refused_by_a_command(
    case: str, tool: str, data: Path, config: Path, tmp_path: Path, outcome: Callable
) -> None:
    strings, spoil, words = OPENVINO[case]
    xml, weights = spoil(*_openvino(tmp_path, strings))
    path = tmp_path / 'a.xml'
    path.write_bytes(xml)
    if weights is not None:
        path.with_suffix('.bin').write_bytes(weights)
    result = _call(outcome, tool, data, config, path)
    assert result.refused(str(path), words), result


def _call(outcome: Callable, tool: str, data: Path, config: Path, path: Path) -> Any:
    if tool == 'test':
        return outcome('test', config, path, '--work-dir', path.parent / 'out')
    return outcome('predict', data / 'images', config, path, '--device', 'cpu', '--out-dir', path.parent / 'out')


@pytest.mark.parametrize('case', CASES)
def test_without_the_guard_the_runtime_speaks(case: str, tmp_path: Path) -> None:
    """ONNX Runtime's own exceptions name no file, and a file without metadata loads as if nothing were wrong."""
    import onnxruntime

    name, make = CASES[case]
    path = tmp_path / name
    path.write_bytes(make(tmp_path))
    try:
        session = onnxruntime.InferenceSession(str(path))
        strings = session.get_modelmeta().custom_metadata_map
        {key: json.loads(value) for key, value in strings.items()}
    except Exception as error:
        assert not isinstance(error, InputError)
    else:
        assert set(strings) != set(PROPER)


@pytest.mark.parametrize('case', [*OPENVINO, *OTHER])
def test_without_the_guard_the_other_runtime_speaks(case: str, tmp_path: Path) -> None:
    """An exception that names no file, before the first image or at it; nothing at all where metadata are missing."""
    openvino = pytest.importorskip('openvino')
    path = tmp_path / 'a.xml'
    if case in OPENVINO:
        strings, spoil, _ = OPENVINO[case]
        xml, weights = spoil(*_openvino(tmp_path, strings))
        path.write_bytes(xml)
        if weights is not None:
            path.with_suffix('.bin').write_bytes(weights)
    if case in OTHER:
        path = tmp_path / OTHER[case][0]
        path.write_bytes(OTHER[case][1](tmp_path))
    try:
        model = openvino.Core().compile_model(path, 'CPU')
        assert case == 'no metadata' or 'other' in case
        if case != 'no metadata':
            model({'images': np.zeros((1, 3, 32, 32), np.float32), 'sizes': np.array([[32, 32]])})
    except Exception as error:
        assert not isinstance(error, InputError)
    else:
        assert case == 'no metadata'


VALUES: dict[str, Any] = {  # fields of the metadata, what they can't be
    'recipe': 'galaxy',
    'version': 1,
    'classes': 5,
    'mean': 'x',
    'std': [0, 0, 0],
    'divisor': 0,
    'scale': None,
    'resize': [],
    'preprocess': 'no',
    'full_masks': 1,
    'detections': -1,
    'pasting': 'no',
    'mask_threshold': 'x',
    'precision': 'double',
}
ARRAYS = {
    'boxes': np.float32([[1, 1, 20, 20]]),
    'labels': np.int64([0]),
    'scores': np.float32([0.9]),
    'mask_scores': np.float32([0.9]),
    'masks': np.ones((1, 28, 28), np.float32),
    'image_index': np.int64([0]),
}
WHOLE = {'full_masks': 'true'}
RESULTS: dict[str, tuple[dict[str, np.ndarray], dict[str, str], str]] = {  # outputs, metadata, words
    'a label beyond the classes': ({'labels': np.int64([7])}, {}, 'a label not one of 1'),
    'a label below 0': ({'labels': np.int64([-1])}, {}, 'a label not one of 1'),
    'labels that are fractions': ({'labels': np.float32([0.5])}, {}, 'labels is (1,) of float32'),
    'labels of one rank more': ({'labels': np.int64([[0]])}, {}, 'labels is (1, 1)'),
    'a label': ({'labels': np.int64(0)}, {}, 'labels is ()'),
    'boxes of five numbers': ({'boxes': np.ones((1, 5), np.float32)}, {}, 'boxes is (1, 5) of float32'),
    'boxes of infinity': ({'boxes': np.float32([[0, 0, np.inf, np.inf]])}, {}, 'a box is not finite'),
    'more scores than boxes': ({'scores': np.float32([1, 1])}, {}, 'scores is (2,)'),
    'masks of one rank less': ({'masks': np.ones((1, 28), np.float32)}, {}, 'masks is (1, 28)'),
    'masks of nothing': ({'masks': np.ones((1, 0, 0), np.float32)}, {}, 'masks is (1, 0, 0)'),
    'masks that are no images': ({'masks': np.ones((1, 2, 2), np.float32)}, WHOLE, 'masks is (1, 2, 2)'),
    'detections of no image': ({'image_index': np.int64([[0]])}, {}, 'image_index is (1, 1)'),
    'not as many as promised': ({}, {'detections': '3'}, 'labels is (1,)'),
}

SILENT = ('boxes of infinity', 'masks that are no images', 'not as many as promised')


def _whole(path: Path, changes: dict[str, np.ndarray], strings: dict[str, str]) -> Path:
    """A model that finds the same in every image."""
    arrays = {**ARRAYS, **changes}
    if 'detections' in strings:
        del arrays['image_index']
    int64 = onnx.TensorProto.INT64
    inputs = [('images', FLOAT, [1, 3, 'h', 'w']), ('sizes', int64, [1, 2])]
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    graph = helper.make_graph(
        [helper.make_node('Identity', [f'{name}_constant'], [name]) for name in arrays],
        'graph',
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(name, types[name], array.shape) for name, array in arrays.items()],
        [onnx.numpy_helper.from_array(array, f'{name}_constant') for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
    helper.set_model_props(model, {**PROPER, **strings})
    onnx.save(model, path)
    return path


@pytest.fixture
def predicting(config: Path) -> Path:
    """The config, for pictures of no data set."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='RoundResize', scale=(60, 40)), dict(type='PackDetInputs')]
    data = dict(dataset=dict(type='CenterMaskCocoDataset', pipeline=pipeline))
    config.write_text(f"{config.read_text()}test_dataloader = {data}\nvisualizer = dict(type='CenterMaskVisualizer')\n")
    return config


def test_a_proper_one_is_taken(data: Path, predicting: Path, tmp_path: Path, outcome: Callable) -> None:
    ended = _call(outcome, 'predict', data, predicting, _whole(tmp_path / 'a.onnx', {}, {}))
    assert ended.code == 0 and tmp_path / 'out/vis/a.png' in ended.written


def test_one_of_another_config_is_told(data: Path, predicting: Path, tmp_path: Path, outcome: Callable) -> None:
    predicting.write_text(
        f"{predicting.read_text()}test_dataloader['dataset']['metainfo'] = dict(classes=('thing',))\n"
    )
    said = []
    for strings in (
        {},
        {'recipe': '"paper"', 'pasting': '"rounded"', 'scale': '[80, 40]', 'classes': '["cat", "dog"]'},
    ):
        ended = _call(outcome, 'predict', data, predicting, _whole(tmp_path / 'a.onnx', {}, strings))
        said.append(ended.said)
        assert ended.code == 0
    assert 'was not exported with' not in said[0]
    assert f'a.onnx was not exported with {predicting}, it has classes 2 (cat, dog) where the config has 1' in said[1]
    for words in ('recipe paper', 'pasting rounded', "resizing ('RoundResize', [40, 80])"):
        assert f'{words} where the config has' in said[1]


@pytest.mark.parametrize('field', VALUES)
def test_metadata_of_another_type(field: str, data: Path, predicting: Path, tmp_path: Path, outcome: Callable) -> None:
    path = _whole(tmp_path / 'a.onnx', {}, {field: json.dumps(VALUES[field])})
    ended = _call(outcome, 'predict', data, predicting, path)
    assert ended.refused(f"The metadata of {path} can't be used, {field} is {str(VALUES[field])!r} and not"), ended


@pytest.mark.parametrize('field', VALUES)
def test_without_the_guard_they_are_believed(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, '_RULES', {})
    read = metadata.Metadata.read({**PROPER, field: json.dumps(VALUES[field])}, 'a.onnx')
    assert getattr(read, field) == VALUES[field]


@pytest.mark.parametrize('case', RESULTS)
def test_results_of_another_form(case: str, tmp_path: Path) -> None:
    changes, strings, words = RESULTS[case]
    model = ExportedModel(_whole(tmp_path / 'a.onnx', changes, strings))
    with pytest.raises(InputError) as error:
        model(np.zeros((1, 3, 64, 64), np.float32), np.array([[40, 60]]))
    assert words in str(error.value) and str(tmp_path / 'a.onnx') in str(error.value)


def test_images_of_another_form(tmp_path: Path) -> None:
    """A file that takes others than its metadata promise."""
    model = ExportedModel(_whole(tmp_path / 'a.onnx', {}, {'preprocess': 'true'}))
    with pytest.raises(InputError, match="doesn't compute what its metadata promise, "):
        model(np.zeros((1, 64, 64, 3), np.uint8), np.array([[40, 60]]))
    with pytest.raises(Exception) as error:
        model.run(np.zeros((1, 64, 64, 3), np.uint8), np.array([[40, 60]]))
    assert not isinstance(error.value, InputError)


@pytest.mark.parametrize('case', ['a label beyond the classes', 'boxes of five numbers'])
def test_such_results_end_a_command(case: str, data: Path, predicting: Path, tmp_path: Path, outcome: Callable) -> None:
    path = _whole(tmp_path / 'a.onnx', *RESULTS[case][:2])
    ended = _call(outcome, 'predict', data, predicting, path)
    *_, sentence = ended.said.splitlines()  # after the warning that the file is of another config
    assert ended.code == 2 and sentence.startswith(f"error: The exported model {path} doesn't compute"), ended


@pytest.mark.parametrize('case', RESULTS)
def test_without_the_guard_results_are_a_traceback_or_wrong(
    case: str, data: Path, predicting: Path, tmp_path: Path, outcome: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExportedModel, '_check_shapes', lambda *_: None)
    monkeypatch.setattr(ExportedModel, '_check_values', lambda *_: None)
    path = _whole(tmp_path / 'a.onnx', *RESULTS[case][:2])
    code = _call(outcome, 'predict', data, predicting, path).code
    assert code == (0 if case in SILENT else -1)
