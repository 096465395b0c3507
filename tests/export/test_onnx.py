"""Exported files against their models, in ONNX Runtime and OpenVINO.

Torch needs half a minute for an export that takes images of all sizes, and a quarter of that for one size.
"""

import copy
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from helpers.one_size import SIZE, of_one_size
from helpers.read_configs import read_config
from helpers.small_model import noise_image, sample, small_model_config
from mmdet.registry import MODELS
from mmengine.config import Config

from centermask import CenterMask
from centermask.export import onnx as export
from centermask.export.compare import Comparison, compare
from centermask.export.exported_detector import ExportedCenterMask
from centermask.export.files import convert
from centermask.export.inputs import make_inputs
from centermask.export.runtime import ExportedModel
from centermask.structures.rle_masks import RLEMasks
from centermask.utils.errors import InputError

onnx = pytest.importorskip('onnx')
for package in ('onnxscript', 'onnxruntime', 'openvino'):
    pytest.importorskip(package)

RUNTIMES = ['onnxruntime', 'openvino']
IMAGES = [noise_image(*SIZE), noise_image(130, 64), noise_image(70, 90)]
DCN = dict(dcn_stages=(False, True, True, True))
ALL_SIZES: dict[str, tuple[str, dict, dict[str, bool]]] = {  # recipe, changes of the backbone, options
    'star, all sizes': ('star', {}, {}),
    'paper, preprocess': ('paper', {}, dict(preprocess=True)),
    'star, full masks, fixed': ('star', {}, dict(full_masks=True, padded=True)),
}
ONE_SIZE: dict[str, tuple[str, dict, dict[str, bool]]] = {
    'star': ('star', {}, {}),
    'paper': ('paper', {}, {}),
    'star DCN': ('star', DCN, {}),
}
QUICK = ['star', 'paper']
CASES = [pytest.param(case, marks=[] if case in QUICK else pytest.mark.slow) for case in {**ALL_SIZES, **ONE_SIZE}]


class Export(NamedTuple):
    model: CenterMask
    file: Path


def build(recipe: str, backbone: dict) -> CenterMask:
    """Build a small model that detects boxes of all sizes, some of them empty, in noise."""
    config = small_model_config(recipe)
    config['backbone'].update(backbone)
    config['test_cfg'].update(score_thr=0.008, max_per_img=20, mask_format='rle')
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    torch.nn.init.normal_(model.bbox_head.conv_reg.weight, std=0.3)
    torch.nn.init.normal_(model.bbox_head.conv_cls.weight, std=0.1)
    torch.nn.init.constant_(model.bbox_head.conv_reg.bias, 1.0)
    torch.nn.init.normal_(model.roi_head.mask_head.conv_logits.weight, std=0.05)  # no cells at the threshold
    with torch.no_grad():  # features of deep random backbones grow, and rounding errors with them
        images = model.data_preprocessor({'inputs': [noise_image(96, 96)], 'data_samples': None})['inputs']
        for lateral, feature in zip(model.neck.lateral_convs, model.backbone(images), strict=True):
            lateral.conv.weight /= feature.std()
    for module in model.modules():
        if hasattr(module, 'conv_offset'):
            torch.nn.init.normal_(module.conv_offset.weight, std=0.01)
    model.dataset_meta = {'classes': ('circle', 'square', 'star')}
    return model


@pytest.fixture(scope='session')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Export]:
    """``exported(case)`` is the model and its ONNX file, written once."""
    folder = tmp_path_factory.mktemp('exported')
    resize = dict(type='Resize', _scope_='centermask', scale=(1000, 600))
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[resize]))))

    @cache
    def write(case: str) -> Export:
        recipe, backbone, options = {**ALL_SIZES, **ONE_SIZE}[case]
        model, file = build(recipe, backbone), folder / f'{case}.onnx'
        with of_one_size() if case in ONE_SIZE else nullcontext():
            onnx.save(export.to_onnx(model, export.describe(model, cfg, **options)), file)
        return Export(model, file)

    return write


def compare_file(model: CenterMask, file: Path, runtime: str | None = None, images: list = IMAGES) -> Comparison:
    return compare(model, ExportedCenterMask(str(file), runtime, test_cfg=dict(mask_format='rle')), images)


def with_constant(exported: Export, folder: Path, name: str, value: float) -> Export:
    """Return the model and its file with all values of a parameter replaced."""
    model = copy.deepcopy(exported.model)
    torch.nn.init.constant_(model.get_parameter(name), value)
    changed = onnx.load(exported.file)
    (parameter,) = (tensor for tensor in changed.graph.initializer if tensor.name.endswith(name))
    values = np.full_like(onnx.numpy_helper.to_array(parameter), value)
    parameter.CopyFrom(onnx.numpy_helper.from_array(values, parameter.name))
    onnx.save(changed, folder / 'changed.onnx')
    return Export(model, folder / 'changed.onnx')


@pytest.mark.parametrize('case', CASES)
def test_same_detections(case: str, exported: Callable[[str], Export]) -> None:
    model, file = exported(case)
    for runtime in RUNTIMES[:1] if 'DCN' in case else RUNTIMES:
        result = compare_file(model, file, runtime, IMAGES[:1] if case in ONE_SIZE else IMAGES)
        assert result.total >= 10 and result.agreeing >= result.total - 2, str(result)
        assert result.box < 1e-2 and result.score < 1e-4, str(result)


def test_no_detections(exported: Callable[[str], Export], tmp_path: Path) -> None:
    model, file = with_constant(exported('star'), tmp_path, 'bbox_head.conv_cls.bias', -100)
    (inputs,) = make_inputs(model, IMAGES[:1], preprocess=False)
    for runtime in RUNTIMES:
        assert compare_file(model, file, runtime, IMAGES[:1]).total == 0
        (found,) = ExportedModel(file, runtime)(**inputs)
        assert found.masks.shape == (0, 28, 28)


def test_empty_boxes_are_dropped(exported: Callable[[str], Export], tmp_path: Path) -> None:
    model, file = with_constant(exported('star'), tmp_path, 'bbox_head.conv_reg.bias', -4)
    (inputs,) = make_inputs(model, IMAGES[:1], preprocess=False)
    (raw,) = model.bbox_head.predict(model.extract_feat(torch.from_numpy(inputs['images'])), [sample(*SIZE)])
    empty = (raw.bboxes[:, 2:] <= raw.bboxes[:, :2]).any(1)
    assert empty.any() and not empty.all()
    for runtime in RUNTIMES:
        result = compare_file(model, file, runtime, IMAGES[:1])
        assert result.agreeing == result.total > 0, str(result)
        (found,) = ExportedModel(file, runtime)(**inputs)
        assert all(np.isfinite(part).all() for part in found)


@pytest.mark.slow
def test_fixed_number_of_detections(exported: Callable[[str], Export]) -> None:
    model, file = exported('star, full masks, fixed')
    images = [noise_image(64, 64), noise_image(96, 64)]
    batch = model.data_preprocessor({'inputs': images, 'data_samples': None})['inputs']
    for runtime in RUNTIMES:
        outputs = ExportedModel(file, runtime).run(batch.numpy(), np.array([(64, 64), (96, 64)]))
        assert [part.shape for part in outputs.values()] == [(2, 20, 4), (2, 20), (2, 20), (2, 20), (2, 20, 96, 64)]
        missing = outputs['labels'] < 0
        assert (outputs['scores'][missing] == 0).all() and (outputs['scores'][~missing] > 0).all()


@pytest.mark.slow
def test_tensorrt_lists_the_operators_of_a_fixed_file(exported: Callable[[str], Export]) -> None:
    from helpers.tensorrt_operators import unlisted

    assert unlisted(onnx.load(exported('star, full masks, fixed').file)) == set()


@pytest.mark.slow
@pytest.mark.parametrize('case', ['star, all sizes', 'star, full masks, fixed'])
def test_results_in_pixels_of_the_original_images(case: str, exported: Callable[[str], Export]) -> None:
    """Two images at once, of which the second was resized to half its size."""
    model, file = exported(case)
    sizes, originals = [SIZE, (70, 90)], [SIZE, (140, 180)]

    def data(ori_shapes: list) -> dict:
        factors = [shape[0] / size[0] for shape, size in zip(ori_shapes, sizes, strict=True)]
        metas = [
            dict(ori_shape=shape, scale_factor=(1 / f, 1 / f)) for shape, f in zip(ori_shapes, factors, strict=True)
        ]
        samples = [sample(*size, **meta) for size, meta in zip(sizes, metas, strict=True)]
        return dict(inputs=[noise_image(*size) for size in sizes], data_samples=samples)

    with torch.no_grad():
        results = [result.pred_instances for result in model.test_step(data(originals))]
        if 'full masks' in case:  # those of the resized image, enlarged
            small = model.test_step(data(sizes))[1].pred_instances.masks
            pixels = np.array([rle.decode() for rle in small], np.uint8).repeat(2, axis=1).repeat(2, axis=2)
            results[1].masks = RLEMasks(coco_mask.encode(np.asfortranarray(pixels.transpose(1, 2, 0))), originals[1])
    for runtime in RUNTIMES:
        tensors, rles = (
            ExportedCenterMask(str(file), runtime, test_cfg=dict(mask_format=mask_format)).test_step(data(originals))
            for mask_format in ('tensor', 'rle')
        )
        for expected, tensor, rle, size in zip(results, tensors, rles, originals, strict=True):
            masks, encoded = tensor.pred_instances.masks, rle.pred_instances.masks
            assert masks.shape[1:] == size and isinstance(encoded, RLEMasks) and torch.equal(masks, encoded.cpu())
            result = Comparison()
            result.add(expected, rle.pred_instances)
            assert result.agreeing == result.total > 15, str(result)


def test_operators_and_metadata(exported: Callable[[str], Export]) -> None:
    content = onnx.load(exported('star').file)
    assert {node.domain for node in content.graph.node} == {''} and not content.functions
    assert [(entry.domain, entry.version) for entry in content.opset_import] == [('', 18)]
    metadata = ExportedModel(exported('star').file).metadata
    assert metadata.recipe == 'star' and metadata.classes == ['circle', 'square', 'star']
    assert metadata.mean == [103.53, 116.28, 123.675] and metadata.scale == [1000, 600]
    assert (metadata.preprocess, metadata.pasting, metadata.precision) == (False, 'sampled', 'float32')


def test_openvino_file(exported: Callable[[str], Export], tmp_path: Path) -> None:
    model, file = exported('star')
    metadata = ExportedModel(file).metadata
    convert(file, tmp_path / 'model.xml', metadata)
    assert ExportedModel(tmp_path / 'model.xml').metadata == metadata
    result = compare_file(model, tmp_path / 'model.xml', None, IMAGES[:1])
    assert result.agreeing == result.total, str(result)


@pytest.mark.slow
def test_signals_are_handled_after_openvino(exported: Callable[[str], Export]) -> None:
    """OpenVINO leaves a freed signal stack behind if the first of two models is freed first."""
    program = f"""
import faulthandler, os, signal
faulthandler.enable()  # as pytest does: Python's handlers then run on a stack of their own
from centermask.export.runtime import ExportedModel
first, second = (ExportedModel({str(exported('star').file)!r}, 'openvino') for _ in range(2))
del first
del second
signal.signal(signal.SIGTERM, lambda *_: print('handled'))
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == 'handled\n', done


@pytest.mark.slow
def test_deformable_convs(exported: Callable[[str], Export]) -> None:
    file = exported('star DCN').file
    assert [(entry.domain, entry.version) for entry in onnx.load(file).opset_import] == [('', 19)]
    with pytest.raises(InputError, match=r"OpenVINO doesn't run the deformable convs of .*star DCN\.onnx"):
        ExportedModel(file, 'openvino')


@pytest.mark.parametrize(('precision', 'size', 'tolerance'), [('half', 0.55, 0.002), ('int8', 0.4, 0.1)])
def test_reduced_precision(
    precision: str, size: float, tolerance: float, exported: Callable[[str], Export], tmp_path: Path
) -> None:
    model, file = exported('star')
    inputs = make_inputs(model, [noise_image(*SIZE, seed) for seed in range(2)], preprocess=False)
    out = tmp_path / 'reduced.onnx'
    convert(file, out, replace(ExportedModel(file).metadata, precision=precision), inputs)
    onnx.checker.check_model(out, full_check=True)
    assert out.stat().st_size < size * file.stat().st_size
    reduced = ExportedModel(out)
    assert reduced.metadata.precision == precision
    (expected,), (found,) = ExportedModel(file)(**inputs[0]), reduced(**inputs[0])
    assert found.boxes.dtype == np.float32 and abs(found.scores[0] - expected.scores[0]) < tolerance


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / 'a.onnx').touch()
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(InputError, match=r"onnxruntime isn't installed, which exported models need: pip install"):
        ExportedModel(tmp_path / 'a.onnx')


@pytest.mark.parametrize(
    'name', ['tensormask_r50_fpn_1x_coco', 'shapemask_r101_fpn_2x_coco', 'retinamask_r101_fpn_2x_coco']
)
def test_baselines_are_refused(name: str) -> None:
    config = read_config(name)
    with torch.device('meta'):
        model = MODELS.build(config.model)
    with pytest.raises(InputError, match='builds no CenterMask with a mask branch: only such a model can be exported'):
        export.describe(model, config)
