"""Exported files that can't be used: damaged ones, and ONNX files of other tools."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from centermask.export.exported_detector import warn_of_another_config
from centermask.export.metadata import Metadata
from centermask.export.runtime import ExportedModel
from centermask.utils.errors import InputError

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
METADATA = Metadata(
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
)
STRINGS = METADATA.strings()
OUTPUTS = {
    'boxes': np.float32([[1, 1, 20, 20]]),
    'labels': np.int64([0]),
    'scores': np.float32([0.9]),
    'mask_scores': np.float32([0.9]),
    'masks': np.ones((1, 28, 28), np.float32),
    'image_index': np.int64([0]),
}


def model(strings: dict[str, str] = STRINGS, operator: str = 'Identity') -> onnx.ModelProto:
    """Return a model with the same detection for every image, which must be 1 × 3 × H × W."""
    sizes = helper.make_tensor_value_info('sizes', onnx.TensorProto.INT64, [1, 2])
    graph = helper.make_graph(
        [helper.make_node(operator, [f'{name}_constant'], [name]) for name in OUTPUTS],
        'graph',
        [helper.make_tensor_value_info('images', FLOAT, [1, 3, 'h', 'w']), sizes],
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in OUTPUTS.items()
        ],
        [onnx.numpy_helper.from_array(array, f'{name}_constant') for name, array in OUTPUTS.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
    helper.set_model_props(proto, strings)
    return proto


def with_weights_elsewhere() -> onnx.ModelProto:
    """Return a model that asks the runtime to read another file."""
    proto = model()
    weight = onnx.TensorProto(name='w', data_type=FLOAT, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {'location': '../../../../../../etc/passwd', 'offset': '0', 'length': '16'}.items():
        weight.external_data.add(key=key, value=value)
    proto.graph.initializer.append(weight)
    proto.graph.node.append(helper.make_node('Identity', ['w'], ['v']))
    proto.graph.output.append(helper.make_tensor_value_info('v', FLOAT, [4]))
    return proto


DAMAGED, INCOMPLETE = 'is damaged or no model', 'are incomplete or damaged'
CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    'empty': (lambda: b'', DAMAGED),
    'text': (lambda: b'<html>Sign in to download</html>', DAMAGED),
    'truncated': (lambda: model().SerializeToString()[:60], DAMAGED),
    'unknown operator': (lambda: model(operator='Explode').SerializeToString(), DAMAGED),
    'weights elsewhere': (lambda: with_weights_elsewhere().SerializeToString(), DAMAGED),
    'no metadata': (lambda: model({}).SerializeToString(), INCOMPLETE),
    'part of the metadata': (lambda: model({'recipe': '"star"'}).SerializeToString(), INCOMPLETE),
    'metadata that are no JSON': (lambda: model({**STRINGS, 'classes': '[['}).SerializeToString(), INCOMPLETE),
}


@pytest.mark.parametrize('case', CASES)
def test_onnx_file(case: str, tmp_path: Path) -> None:
    make, words = CASES[case]
    path = tmp_path / 'a.onnx'
    path.write_bytes(make())
    with pytest.raises(InputError, match=words) as error:
        ExportedModel(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('case', ['no .bin', 'truncated .xml', 'no metadata'])
def test_openvino_file(case: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip('openvino')
    path = tmp_path / 'a.xml'
    onnx.save(model(), tmp_path / 'a.onnx')
    openvino.save_model(openvino.convert_model(tmp_path / 'a.onnx'), path)
    if case == 'no .bin':
        path.with_suffix('.bin').unlink()
    if case == 'truncated .xml':
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=INCOMPLETE if case == 'no metadata' else DAMAGED):
        ExportedModel(path)


@pytest.mark.parametrize('name', ['none.onnx', 'a.pt', 'a.xml'])
def test_other_files(name: str, tmp_path: Path) -> None:
    (tmp_path / 'a.pt').touch()
    with pytest.raises(InputError, match='no exported model' if name == 'a.pt' else "doesn't exist"):
        ExportedModel(tmp_path / name)


def test_names_of_older_versions(tmp_path: Path) -> None:
    onnx.save(model({**STRINGS, 'pasting': '"rounded"'}), tmp_path / 'a.onnx')
    assert ExportedModel(tmp_path / 'a.onnx').metadata.pasting == 'resized'


def test_images_that_the_runtime_refuses(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / 'a.onnx')
    with pytest.raises(InputError, match=r'onnxruntime fails to run .*a\.onnx on images of shape \(1, 1, 64, 64\): '):
        ExportedModel(tmp_path / 'a.onnx')(np.zeros((1, 1, 64, 64), np.float32), np.array([[40, 60]]))


@pytest.fixture
def predict(data: Path, config: Path, tmp_path: Path, outcome: Callable) -> Callable:
    """``predict(strings)`` runs tools/predict.py with a file of these metadata."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', _scope_='centermask', scale=(60, 40)),
        dict(type='PackDetInputs'),
    ]
    dataset = dict(type='CenterMaskCocoDataset', metainfo=dict(classes=('thing',)), pipeline=pipeline)
    added = f"test_dataloader = {dict(dataset=dataset)}\nvisualizer = dict(type='CenterMaskVisualizer')\n"
    config.write_text(config.read_text() + added)

    def call(strings: dict[str, str]) -> object:
        onnx.save(model(strings), tmp_path / 'a.onnx')
        out = ['--device', 'cpu', '--out-dir', tmp_path / 'out']
        return outcome('predict', data / 'images', config, tmp_path / 'a.onnx', *out)

    return call


def test_a_usable_file(predict: Callable, tmp_path: Path) -> None:
    ended = predict(STRINGS)
    assert ended.code == 0 and tmp_path / 'out/vis/a.png' in ended.written and 'warning' not in ended.said


def test_a_file_of_another_config(predict: Callable) -> None:
    ended = predict({**STRINGS, 'recipe': '"paper"', 'scale': '[80, 40]', 'classes': '["cat", "dog"]'})
    assert ended.code == 0 and 'a.onnx was exported with another config than ' in ended.said
    assert "classes ['cat', 'dog'] (config: ['thing']); recipe 'paper' (config: 'star'); resizing" in ended.said


def test_the_config_that_a_test_of_the_file_leaves(capsys: pytest.CaptureFixture) -> None:
    """It doesn't say the recipe."""
    resize = dict(type='centermask.Resize', scale=(60, 40))
    data = dict(type='CocoDataset', metainfo=dict(classes=('thing',)), pipeline=[resize])
    cfg = Config(dict(model=dict(type='ExportedCenterMask'), test_dataloader=dict(dataset=data)))
    metadata = replace(METADATA, recipe='paper', resize='centermask.Resize')
    warn_of_another_config(cfg, metadata, 'a.onnx')
    assert capsys.readouterr().err == ''
    cfg.model = dict(type='CenterMask', bbox_head=dict(legacy_boxes=False))
    warn_of_another_config(cfg, metadata, 'a.onnx')
    assert "recipe 'paper' (config: 'star')" in capsys.readouterr().err


def test_refused_by_a_command(predict: Callable, tmp_path: Path) -> None:
    ended = predict({})
    assert ended.refused(f'The metadata of {tmp_path}/a.onnx are incomplete'), ended
