"""Exported files against the models that they were made of: both recipes, four backbones, both runtimes.

An export takes half a minute, so each is made once and has a share of the options; and a quarter of that where torch
needn't follow sizes, so each backbone is exported for images of all sizes in one recipe and of one size in the other.
"""

import copy
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.one_size import SIZE, of_one_size
from helpers.small_model import sample, small_model_config
from mmdet.registry import MODELS
from mmengine.config import Config

from centermask import CenterMask
from centermask.export import onnx as export
from centermask.export.compare import compare
from centermask.export.exported_detector import ExportedCenterMask
from centermask.export.files import convert, save_onnx
from centermask.export.pictures import Batch, make_batch, make_inputs
from centermask.export.runtime import ExportedModel
from centermask.structures.rle_masks import RLEMasks
from centermask.utils.errors import InputError

onnx = pytest.importorskip('onnx')
for package in ('onnxscript', 'onnxruntime', 'openvino'):
    pytest.importorskip(package)
numpy_helper = onnx.numpy_helper

RUNTIMES = ['onnxruntime', 'openvino']
R50 = dict(type='ResNet', depth=50, out_indices=(1, 2, 3), style='caffe', init_cfg=None)
WITHOUT_EPSILON = dict(type='BN', requires_grad=False, eps=0)  # the paper recipe's
BACKBONES: dict[str, tuple[dict, list[int]]] = {
    'R-50': ({**R50, 'norm_cfg': WITHOUT_EPSILON}, [512, 1024, 2048]),
    'V2-39': (dict(type='VoVNet', arch='39', init_cfg=None), [512, 768, 1024]),
    'V2-19-slim': (dict(type='VoVNet', arch='19-slim', init_cfg=None), [256, 384, 512]),
    'MobileNetV2': (dict(type='MobileNetV2Features', init_cfg=None), [32, 96, 320]),
    'DCN': (dict(type='VoVNet', arch='19-slim', dcn_stages=(False, True, True, True), init_cfg=None), [256, 384, 512]),
}
CASES: dict[str, tuple[str, str, dict[str, bool]]] = {  # recipe, backbone, options
    'lite star': ('star', 'V2-19-slim', {}),
    'paper': ('paper', 'R-50', dict(preprocess=True)),
    'star': ('star', 'V2-39', dict(full_masks=True, padded=True)),
    'lite paper': ('paper', 'MobileNetV2', dict(padded=True)),
}
OF_ONE_SIZE: dict[str, tuple[str, str, dict[str, bool]]] = {
    'star of one size': ('star', 'R-50', {}),
    'paper of one size': ('paper', 'V2-39', {}),
    'lite star of one size': ('star', 'MobileNetV2', {}),
    'lite paper of one size': ('paper', 'V2-19-slim', {}),
    'dcn': ('star', 'DCN', {}),
}


class Export(NamedTuple):
    model: CenterMask
    file: Path


def build(recipe: str, backbone: str) -> CenterMask:
    """A small model that finds boxes of all sizes, some without area, in noise."""
    config = small_model_config(recipe)
    config['backbone'], config['neck']['in_channels'] = BACKBONES[backbone]
    config['test_cfg'].update(score_thr=0.008, max_per_img=20)
    torch.manual_seed(0)
    model = MODELS.build(config)
    torch.nn.init.normal_(model.bbox_head.conv_reg.weight, std=0.3)
    torch.nn.init.normal_(model.bbox_head.conv_cls.weight, std=0.1)
    torch.nn.init.constant_(model.bbox_head.conv_reg.bias, 1.0)
    with torch.no_grad():  # of deep backbones features grow, and with them the rounding
        model.eval()
        features = model.backbone(make_batch(model, noise((96, 96))).network)
        for lateral, feature in zip(model.neck.lateral_convs, features, strict=True):
            lateral.conv.weight /= feature.std()
    for module in model.modules():
        if hasattr(module, 'conv_offset'):
            torch.nn.init.normal_(module.conv_offset.weight, std=0.01)
    model.dataset_meta = {'classes': ('circle', 'square', 'star')}
    return model.eval()


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Export]:
    """A case's model and its ONNX file."""
    folder = tmp_path_factory.mktemp('exported')
    resize = dict(type='RoundResize', scale=(1000, 600))
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[resize]))))

    @cache
    def make(case: str) -> Export:
        recipe, backbone, options = {**CASES, **OF_ONE_SIZE}[case]
        model = build(recipe, backbone)
        file = folder / f'{case}.onnx'
        with of_one_size() if case in OF_ONE_SIZE else nullcontext():
            save_onnx(export.to_onnx(model, export.describe(model, cfg, **options)), file)
        return Export(model, file)

    return make


def noise(*sizes: tuple[int, int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def batches(model: CenterMask) -> list[Batch]:
    """Three sizes, and two of them together."""
    sizes = [SIZE, (130, 64), (70, 90)]
    return [make_batch(model, noise(size)) for size in sizes] + [make_batch(model, noise(*sizes[:2], seed=1))]


def with_values(made: Export, folder: Path, name: str, value: float) -> Export:
    """The model and its file with all values of a parameter replaced."""
    model = copy.deepcopy(made.model)
    torch.nn.init.constant_(model.get_parameter(name), value)
    changed = onnx.load(made.file)
    (parameter,) = (tensor for tensor in changed.graph.initializer if tensor.name.endswith(name))
    values = np.full_like(numpy_helper.to_array(parameter), value)
    parameter.CopyFrom(numpy_helper.from_array(values, parameter.name))
    save_onnx(changed, folder / 'changed.onnx')
    return Export(model, folder / 'changed.onnx')


@pytest.mark.slow
@pytest.mark.parametrize('case', [*CASES, *OF_ONE_SIZE])
def test_finds_what_the_model_finds(case: str, made: Callable[[str], Export]) -> None:
    model, file = made(case)
    images = batches(model) if case in CASES else [make_batch(model, noise(SIZE, seed=seed)) for seed in range(3)]
    for runtime in RUNTIMES[: 1 if case == 'dcn' else 2]:
        result = compare(model, ExportedModel(file, runtime), images)
        assert result.wrong == [], str(result)
        assert result.matched > 20 and len(result.allowed) <= 2


def test_every_backbone_in_both_recipes() -> None:
    exported = {(recipe, backbone) for recipe, backbone, _ in [*CASES.values(), *OF_ONE_SIZE.values()]}
    assert exported >= {(recipe, name) for recipe in ('star', 'paper') for name in BACKBONES if name != 'DCN'}


@pytest.mark.slow
@pytest.mark.parametrize('case', ['lite star', 'lite paper'])
def test_finds_nothing_as_the_model(case: str, made: Callable[[str], Export], tmp_path: Path) -> None:
    model, file = with_values(made(case), tmp_path, 'bbox_head.conv_cls.bias', -100)
    for runtime in RUNTIMES:
        exported = ExportedModel(file, runtime)
        result = compare(model, exported, batches(model))
        assert (result.matched, result.wrong, result.allowed) == (0, [], [])
        found = exported(**batches(model)[0].inputs(False))
        assert len(found) == 1 and found[0].masks.shape == (0, 28, 28)


@pytest.mark.slow
def test_boxes_without_area(made: Callable[[str], Export], tmp_path: Path) -> None:
    """Some of them: these are dropped, and nothing becomes NaN."""
    model, file = with_values(made('lite star'), tmp_path, 'bbox_head.conv_reg.bias', -4)
    (eager,) = model.bbox_head.predict_by_feat(
        *model.bbox_head(model.extract_feat(batches(model)[0].network)), [dict(img_shape=(96, 128))]
    )
    areas = (eager.bboxes[:, 2:] - eager.bboxes[:, :2]).prod(1)
    assert (areas <= 0).any() and (areas > 0).any()
    for runtime in RUNTIMES:
        exported = ExportedModel(file, runtime)
        result = compare(model, exported, batches(model))
        assert result.wrong == [] and result.matched > 0
        (found,) = exported(**batches(model)[0].inputs(False))
        assert all(np.isfinite(part).all() for part in found)


@pytest.mark.slow
def test_fixed_number(made: Callable[[str], Export]) -> None:
    model, file = made('lite paper')
    batch = make_batch(model, noise((64, 64), (96, 64)))
    for runtime in RUNTIMES:
        outputs = ExportedModel(file, runtime).run(**batch.inputs(False))
        assert {name: values.shape for name, values in outputs.items()} == {
            'boxes': (2, 20, 4),
            'labels': (2, 20),
            'scores': (2, 20),
            'mask_scores': (2, 20),
            'masks': (2, 20, 28, 28),
        }
        missing = outputs['labels'] < 0
        assert (outputs['scores'][missing] == 0).all() and (outputs['scores'][~missing] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize('mask_format', ['tensor', 'rle'])
@pytest.mark.parametrize('case', ['paper', 'star'])
def test_in_the_place_of_the_model(case: str, mask_format: str, made: Callable[[str], Export]) -> None:
    """What tools/test.py and tools/predict.py get of two images together, of which the second was twice as large."""
    model, file = made(case)
    sizes, whole = [SIZE, (70, 90)], [SIZE, (140, 180)]

    def data() -> dict:
        metas = [dict(ori_shape=size, scale_factor=(share, share)) for size, share in zip(whole, (1, 0.5), strict=True)]
        samples = [sample(*size, **meta) for size, meta in zip(sizes, metas, strict=True)]
        return dict(inputs=noise(*sizes), data_samples=samples)

    for runtime in RUNTIMES:
        detector = ExportedCenterMask(str(file), runtime, test_cfg=dict(mask_format=mask_format))
        for a, b, size in zip(model.test_step(data()), detector.test_step(data()), whole, strict=True):
            expected, found = a.pred_instances, b.pred_instances
            assert isinstance(found.masks, RLEMasks if mask_format == 'rle' else torch.Tensor)
            masks = found.masks.cpu()
            assert masks.dtype == torch.bool and masks.shape == (len(expected), *size)
            distances = (expected.bboxes[:, None] - found.bboxes).abs().amax(2)
            distances[expected.labels[:, None] != found.labels] = torch.inf
            match = distances.argmin(1)
            assert len(set(match.tolist())) == len(match) >= 5 and distances.amin(1).max() < 0.02
            assert (expected.scores - found.scores[match]).abs().max() < 1e-4
            assert (expected.mask_scores - found.mask_scores[match]).abs().max() < 1e-4
            # Full masks come in the resized image's pixels, so their outlines are coarser in one twice as large.
            coarser = case == 'star' and size != SIZE
            assert (expected.masks != masks[match]).float().mean((1, 2)).max() <= (0.03 if coarser else 1e-3)
            assert expected.masks.float().mean((1, 2)).max() > 0.1


@pytest.mark.slow
def test_standard_operators_and_metadata(made: Callable[[str], Export]) -> None:
    for case, opset in (('lite star', 18), ('paper', 18), ('dcn', 19)):
        content = onnx.load(made(case).file)
        assert {node.domain for node in content.graph.node} == {''} and not content.functions
        assert [(entry.domain, entry.version) for entry in content.opset_import] == [('', opset)]
    metadata = ExportedModel(made('paper').file).metadata
    assert metadata.recipe == 'paper' and metadata.classes == ['circle', 'square', 'star']
    assert metadata.mean == [102.9801, 115.9465, 122.7717] and metadata.preprocess and metadata.scale == [1000, 600]


@pytest.mark.slow
def test_openvino_file(made: Callable[[str], Export], tmp_path: Path) -> None:
    model, file = made('lite star')
    metadata = ExportedModel(file).metadata
    convert(file, tmp_path / 'model.xml', metadata)
    exported = ExportedModel(tmp_path / 'model.xml')
    assert exported.metadata == metadata
    assert compare(model, exported, batches(model)).wrong == []
    (tmp_path / 'model.bin').write_bytes((tmp_path / 'model.bin').read_bytes()[:1000])
    with pytest.raises(InputError, match='is damaged or no model'):
        ExportedModel(tmp_path / 'model.xml')


@pytest.mark.slow
def test_signals_are_handled_after_openvino(made: Callable[[str], Export]) -> None:
    """Of two models the first is freed first, which leaves OpenVINO's stack for signals behind: a silent crash."""
    program = f"""
import faulthandler, os, signal
faulthandler.enable()  # as pytest does: Python's handlers then run on a stack of their own
from centermask.export.runtime import ExportedModel
first, second = (ExportedModel({str(made('lite star').file)!r}, 'openvino') for _ in range(2))
del first
del second
signal.signal(signal.SIGTERM, lambda *_: print('handled'))
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == 'handled\n', done


@pytest.mark.slow
def test_bad_files(made: Callable[[str], Export], tmp_path: Path) -> None:
    content = made('lite star').file.read_bytes()
    bad: dict[str, Any] = {
        'half.onnx': (content[: len(content) // 2], 'half.onnx is damaged or no model'),
        'empty.onnx': (b'', 'empty.onnx is damaged or no model'),
        'model.pt': (content, 'its name would end in .onnx or .xml'),
        'bad.xml': (b'<net', 'bad.xml is damaged or no model'),
    }
    unknown = onnx.load(made('lite star').file)
    del unknown.metadata_props[:]
    bad['unknown.onnx'] = (unknown.SerializeToString(), "unknown.onnx doesn't say what its model needs")
    for name, (data, words) in bad.items():
        (tmp_path / name).write_bytes(data)
        for runtime in RUNTIMES if name.endswith('.onnx') else [None]:
            with pytest.raises(InputError, match=words):
                ExportedModel(tmp_path / name, runtime)
    with pytest.raises(InputError, match="doesn't exist"):
        ExportedModel(tmp_path / 'none.onnx')


@pytest.mark.slow
def test_deformable_convs_are_not_for_openvino(made: Callable[[str], Export]) -> None:
    with pytest.raises(InputError, match=r"OpenVINO doesn't run the deformable convs of .*dcn\.onnx"):
        ExportedModel(made('dcn').file, 'openvino')


@pytest.mark.slow
def test_smaller_numbers(made: Callable[[str], Export], tmp_path: Path) -> None:
    """float16 and int8 files are smaller, run, and say what they are."""
    model, file = made('lite star')
    inputs = make_inputs(model, noise((96, 96), (96, 96)), False)
    metadata = ExportedModel(file).metadata
    for precision in ('half', 'int8'):
        convert(file, tmp_path / f'{precision}.onnx', replace(metadata, precision=precision), inputs)
    (expected,) = ExportedModel(file)(**inputs[0])
    for name, share in (('half', 0.55), ('int8', 0.4)):
        assert (tmp_path / f'{name}.onnx').stat().st_size < share * file.stat().st_size
        exported = ExportedModel(tmp_path / f'{name}.onnx')
        assert exported.metadata.precision == name
        (found,) = exported(**inputs[0])
        assert len(found.boxes) and abs(found.scores[0] - expected.scores[0]) < 0.1


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / 'a.onnx').touch()
    monkeypatch.setitem(__import__('sys').modules, 'onnxruntime', None)
    with pytest.raises(InputError, match=r"onnxruntime isn't installed, which exported models need: pip install"):
        ExportedModel(tmp_path / 'a.onnx')
