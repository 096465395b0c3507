"""Exported files: refused when they are opened, before anything is run on an image."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from centermask.deploy import metadata
from centermask.deploy.runtime import ExportedModel
from centermask.errors import InputError

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
    pasting='exact',
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
