"""Released checkpoints become ours: the right config, every tensor accounted for, fewer classes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import released_files as released
from helpers.read_configs import find_config
from helpers.small_model import batch, picture, sample, small_model, small_model_config
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from torch import Tensor, nn

from centermask.checkpoints.conversion import Conversion, convert, keep_classes, restore, usage
from centermask.checkpoints.layouts import to_ours, to_released
from centermask.checkpoints.loading import load_weights, start_from, with_statistics
from centermask.checkpoints.reading import Contents
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
pytestmark = pytest.mark.usefixtures('models_built_once')
models_built_once = released.models_built_once

EXPECTED = {  # what parity/ lists, and the config of the longest schedule that has such a model
    'paper/MobileNetV2': 'centermask_mobilenetv2_fpn_3x_coco',
    'paper/R_101': 'centermask_r101_fpn_3x_coco',
    'paper/R_50': 'centermask_r50_fpn_3x_coco',
    'paper/V_19': 'centermask_v2-19_fpn_3x_coco',
    'paper/V_39': 'centermask_v2-39_fpn_3x_coco',
    'paper/V_57': 'centermask_v2-57_fpn_3x_coco',
    'paper/V_99': 'centermask_v2-99_fpn_3x_coco',
    'paper/X_101': 'centermask_x101_fpn_3x_coco',
    'paper/lite_MobileNetV2': 'centermask-lite_mobilenetv2_fpn_4x_coco',
    'paper/lite_R_50': 'centermask-lite_r50_fpn_4x_coco',
    'paper/lite_V_19': 'centermask-lite_v2-19_fpn_4x_coco',
    'paper/lite_V_39': 'centermask-lite_v2-39_fpn_4x_coco',
    'star/R_101': 'centermask-star_r101_fpn_3x_coco',
    'star/R_50': 'centermask-star_r50_fpn_3x_coco',
    'star/V_39': 'centermask-star_v2-39_fpn_3x_coco',
    'star/V_39_dcn': 'centermask-star_v2-39-dcn_fpn_3x_coco',
    'star/V_57': 'centermask-star_v2-57_fpn_3x_coco',
    'star/V_57_dcn': 'centermask-star_v2-57-dcn_fpn_3x_coco',
    'star/V_99': 'centermask-star_v2-99_fpn_3x_coco',
    'star/V_99_dcn': 'centermask-star_v2-99-dcn_fpn_3x_coco',
    'star/X_101': 'centermask-star_x101_fpn_3x_coco',
    'star/lite_MobileNetV2': 'centermask-lite-star_mobilenetv2_fpn_4x_coco',
    'star/lite_V_19': 'centermask-lite-star_v2-19_fpn_4x_coco',
    'star/lite_V_19_slim': 'centermask-lite-star_v2-19-slim_fpn_4x_coco',
    'star/lite_V_19_slim_dw': 'centermask-lite-star_v2-19-slim-dw_fpn_4x_coco',
    'star/lite_V_39': 'centermask-lite-star_v2-39_fpn_4x_coco',
    'star/panoptic_R_101': 'centermask-star_r101_fpn_3x_coco',
    'star/panoptic_R_50': 'centermask-star_r50_fpn_3x_coco',
    'star/panoptic_V_39': 'centermask-star_v2-39_fpn_3x_coco',
    'star/panoptic_V_57': 'centermask-star_v2-57_fpn_3x_coco',
    'star/panoptic_V_99': 'centermask-star_v2-99_fpn_3x_coco',
    'star/panoptic_X_101': 'centermask-star_x101_fpn_3x_coco',
}


def _convert(weights: Mapping[str, Tensor], source: str = 'a.pth') -> Conversion:
    return convert(Contents(dict(weights), 'model', dict(iteration=1, optimizer={})), source, CONFIGS)


def _restored(conversion: Conversion, recipe: str) -> dict[str, Tensor]:
    others = {name: entry for name, entry in conversion.checkpoint.items() if name != 'state_dict'}
    return restore(Contents(conversion.checkpoint['state_dict'], 'state_dict', others), 'a.pth', recipe)['model']


def _assert_returns(conversion: Conversion, recipe: str, weights: Mapping[str, Tensor]) -> None:
    restored = _restored(conversion, recipe)
    assert list(restored) == list(weights)
    assert {name: t.shape for name, t in restored.items()} == {name: t.shape for name, t in weights.items()}


def test_the_list_is_complete(shared: Path) -> None:
    listed = {path.name.removesuffix('.keys.json') for path in (shared / 'parity').glob('*/*.keys.json')}
    assert {name.partition('/')[2] for name in EXPECTED} == listed and len(EXPECTED) == 32


@pytest.mark.parametrize(
    ('name', 'prefix'),
    [(name, prefix) for name in EXPECTED for prefix in ('', 'module.') if not prefix or name.startswith('paper')],
)
def test_every_released_model(name: str, prefix: str, shared: Path) -> None:
    recipe = name.partition('/')[0]
    keys = json.loads((shared / f'parity/{name}.keys.json').read_text())
    weights = released.empty({prefix + key: tuple(shape) for key, shape in keys.items()})
    conversion = _convert(weights)
    assert conversion.checkpoint['meta']['config'] == EXPECTED[name]
    assert conversion.checkpoint['meta']['source'] == recipe
    assert conversion.checkpoint['meta']['dataset_meta']['classes'] == CocoDataset.METAINFO['classes']
    assert conversion.other_entries == ['iteration', 'optimizer']
    of_panoptic = [key for key in weights if 'sem_seg_head' in key or 'fpn_lateral2' in key or 'fpn_output2' in key]
    assert list(conversion.translation.kept) == of_panoptic and bool(of_panoptic) == ('panoptic' in name)
    assert len(conversion.checkpoint['state_dict']) + len(of_panoptic) == len(weights)
    _assert_returns(conversion, recipe, weights)


@pytest.mark.parametrize(
    ('file', 'shapes', 'config'),
    [
        ('centermask-R-50-FPN-ms-2x.pth', released.paper(released.resnet_paper(50), (512, 1024, 2048)), 'r50_fpn_2x'),
        ('centermask-R-50-FPN-ms-3x.pth', released.paper(released.resnet_paper(50), (512, 1024, 2048)), 'r50_fpn_3x'),
        ('centermask-V2-39-FPN-ms-2x.pth', released.paper(released.vovnet('39'), (512, 768, 1024)), 'v2-39_fpn_2x'),
        ('centermask-R-50-FPN-ms-2x.pth', released.paper(released.vovnet('39'), (512, 768, 1024)), 'v2-39_fpn_3x'),
        ('mine.pth', released.paper(released.mobilenetv2(), (32, 96, 320)), 'mobilenetv2_fpn_1x'),
    ],
)
def test_of_several_schedules_the_one_that_the_file_was_released_with(file: str, shapes: dict, config: str) -> None:
    for source in (file, f'some/folder/{file}', f'https://somewhere/{file}?dl=1'):
        assert _convert(released.empty(shapes), source).config.stem == f'centermask_{config}_coco'


CLASSIFIER = {'classifier.weight': (1000, 512), 'classifier.bias': (1000,)}
COUNTER = {'stage2.OSA2_1.concat.OSA2_1_concat/norm.num_batches_tracked': ()}
SLIM = released.vovnet('19-slim')
PANOPTIC = released.star(released.resnet_star(50), (512, 1024, 2048)) | released.semantic_head()
PAPER = 'roi_heads.mask.predictor.mask_fcn_logits'
BACKBONES = {  # shapes, config, keys that a fault is tried on
    'VoVNet': (
        SLIM | CLASSIFIER | COUNTER,
        'centermask-lite-star_v2-19-slim_fpn_4x_coco',
        ['stem.stem_1/conv.weight', 'stage5.OSA5_1.ese.fc.bias', 'stage2.OSA2_1.layers.2.OSA2_1_2/norm.running_mean'],
    ),
    'VoVNet, depthwise': (
        released.vovnet('19-slim-dw'),
        'centermask-lite-star_v2-19-slim-dw_fpn_4x_coco',
        ['stage3.OSA3_1.conv_reduction.OSA3_1_reduction_0/conv.weight', 'stem.stem_2/dw_conv3x3.weight'],
    ),
    'VoVNet, prefix': (
        released.with_prefix('backbone.bottom_up.', released.vovnet('39')),
        'centermask-star_v2-39_fpn_3x_coco',
        ['backbone.bottom_up.stem.stem_3/norm.weight', 'backbone.bottom_up.stage4.OSA4_2.ese.fc.weight'],
    ),
    'VoVNet, prefix of the first release': (
        released.with_prefix('module.backbone.body.', released.vovnet('39')),
        'centermask_v2-39_fpn_3x_coco',
        ['module.backbone.body.stem.stem_1/conv.weight'],
    ),
    'MobileNetV2': (
        released.mobilenetv2() | {'features.18.0.weight': (1280, 320, 1, 1)} | CLASSIFIER,
        'centermask-lite-star_mobilenetv2_fpn_4x_coco',
        ['features.0.0.weight', 'features.1.conv.3.weight', 'features.17.conv.7.bias'],
    ),
    'ResNet-50': (
        released.resnet_star(50, statistics=False) | {'stem.fc.weight': (1000, 2048), 'stem.fc.bias': (1000,)},
        'centermask-star_r50_fpn_3x_coco',
        ['stem.conv1.weight', 'stem.conv1.norm.bias', 'res2.0.shortcut.weight', 'res5.2.conv3.norm.bias'],
    ),
    'ResNet-101': (
        released.resnet_star(101, statistics=False),
        'centermask-star_r101_fpn_3x_coco',
        ['res4.22.conv2.weight'],
    ),
    'ResNeXt-101': (
        released.resnet_star(101, resnext=True),
        'centermask-star_x101_fpn_3x_coco',
        ['stem.conv1.norm.running_mean', 'res5.2.conv3.norm.running_var', 'res4.22.conv2.weight'],
    ),
    'blobs': (
        released.resnet_caffe2(50),
        'centermask-star_r50_fpn_3x_coco',
        ['conv1_w', 'res_conv1_bn_s', 'res2_0_branch1_bn_b', 'res5_2_branch2c_w'],
    ),
    'blobs, statistics': (
        released.resnet_caffe2(101, resnext=True, statistics=True),
        'centermask-star_x101_fpn_3x_coco',
        ['res_conv1_bn_rm', 'res5_2_branch2c_bn_riv', 'res3_0_branch2b_w'],
    ),
    'timm 19b_dw': (
        released.timm_vovnet('19-dw'),
        'centermask-lite-star_v2-19-dw-timm_fpn_4x_coco',
        ['stem.0.conv.weight', 'stem.2.conv_dw.weight', 'stages.3.blocks.0.conv_reduction.bn.bias'],
    ),
    'timm 39b': (
        released.timm_vovnet('39'),
        'centermask-star_v2-39-timm_fpn_3x_coco',
        ['stem.0.conv.weight', 'stages.3.blocks.1.attn.fc.bias', 'stages.0.blocks.0.conv_mid.4.bn.running_var'],
    ),
    'timm 57b': (
        released.timm_vovnet('57'),
        'centermask-star_v2-57-timm_fpn_3x_coco',
        ['stages.2.blocks.3.conv_concat.conv.weight', 'stages.2.blocks.3.attn.fc.weight'],
    ),
}
HEAD = 'proposal_generator.fcos_head'
WHOLE = {
    'star': (
        released.lite_star(),
        'centermask-lite-star_v2-19-slim_fpn_4x_coco',
        [
            f'{HEAD}.cls_logits.weight',
            f'{HEAD}.cls_logits.bias',
            f'{HEAD}.scales.0.scale',
            'backbone.fpn_lateral3.weight',
            'backbone.bottom_up.stem.stem_1/conv.weight',
            'roi_heads.mask_head.predictor.weight',
            'roi_heads.mask_head.spatialAtt.conv.weight',
            'roi_heads.maskiou_head.maskiou.bias',
        ],
    ),
    'star, deformable': (
        released.star(released.vovnet('39', dcn=True), (512, 768, 1024)),
        'centermask-star_v2-39-dcn_fpn_3x_coco',
        [
            'backbone.bottom_up.stage3.OSA3_1.layers.0.OSA3_1_0/conv_offset.weight',
            'backbone.bottom_up.stage5.OSA5_2.layers.4.OSA5_2_4/conv_offset.bias',
        ],
    ),
    'panoptic': (
        PANOPTIC,
        'centermask-star_r50_fpn_3x_coco',
        [
            'backbone.fpn_lateral2.weight',
            'backbone.fpn_output2.bias',
            'backbone.fpn_lateral3.weight',
            'sem_seg_head.p2.0.weight',
            'sem_seg_head.p5.4.norm.bias',
            'sem_seg_head.predictor.weight',
            'sem_seg_head.predictor.bias',
            'backbone.bottom_up.res2.0.shortcut.norm.running_var',
        ],
    ),
    'paper': (
        released.lite_paper(),
        'centermask-lite_v2-19_fpn_4x_coco',
        ['rpn.head.cls_logits.weight', 'rpn.head.scales.4.scale', 'backbone.fpn.fpn_inner2.weight', f'{PAPER}.bias'],
    ),
    'paper, module': (
        released.with_prefix('module.', released.paper(released.resnet_paper(50), (512, 1024, 2048))),
        'centermask_r50_fpn_3x_coco',
        ['module.backbone.body.stem.conv1.weight', f'module.{PAPER}.weight', 'module.rpn.head.centerness.bias'],
    ),
    'paper, no scoring': (
        released.paper(released.mobilenetv2(), (32, 96, 320), lite=True, scoring=False),
        'centermask-lite_mobilenetv2_fpn_4x_coco',
        ['rpn.head.cls_logits.bias', f'{PAPER}.weight', 'backbone.body.features.17.conv.6.weight'],
    ),
}
FILES = BACKBONES | WHOLE


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones(name: str) -> None:
    shapes, config, _ = BACKBONES[name]
    conversion = _convert(released.empty(shapes))
    assert conversion.config.stem == config
    assert 'dataset_meta' not in conversion.checkpoint['meta']
    backbone = MODELS.build({**released._read(find_config(config)).model.backbone, 'init_cfg': None})
    misfits = load_weights(backbone, conversion.checkpoint['state_dict'])
    assert misfits == []
    if conversion.translation.layout in ('vovnet', 'mobilenetv2', 'detectron2'):
        weights = {key: t for key, t in released.empty(shapes).items() if key not in conversion.translation.left_out}
        _assert_returns(conversion, 'star', weights)


def _conv_norm(
    weights: Mapping[str, Tensor], x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1
) -> Tensor:
    """A conv of Caffe2's blobs or of torchvision's names, and its norm."""
    kernel = weights[conv]
    x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
    if f'{norm}_s' in weights:
        scale, bias, mean, variance = (weights.get(f'{norm}_{kind}') for kind in ('s', 'b', 'rm', 'riv'))
    else:
        kinds = ('weight', 'bias', 'running_mean', 'running_var')
        scale, bias, mean, variance = (weights[f'{norm}.{kind}'] for kind in kinds)
    if mean is not None:
        scale = scale / (variance + 1e-5).sqrt()
        bias = bias - mean * scale
    return x * scale[:, None, None] + bias[:, None, None]


def _detectron(blobs: Mapping[str, Tensor], x: Tensor, resnext: bool) -> list[Tensor]:
    """Detectron's ResNet, by the names of its blobs; ResNet's blocks begin with their stride, ResNeXt's 3×3 has it."""
    x = _conv_norm(blobs, x, 'conv1_w', 'res_conv1_bn', stride=2).relu()
    x = F.max_pool2d(x, 3, 2, padding=1)
    outputs = []
    for stage in (2, 3, 4, 5):
        block = 0
        while f'res{stage}_{block}_branch2a_w' in blobs:
            stride = 2 if stage > 2 and block == 0 else 1
            strides, groups = ((1, stride, 1), (1, 32, 1)) if resnext else ((stride, 1, 1), (1, 1, 1))
            y = x
            for branch, its_stride, its_groups in zip(('2a', '2b', '2c'), strides, groups, strict=True):
                name = f'res{stage}_{block}_branch{branch}'
                y = _conv_norm(blobs, y, f'{name}_w', f'{name}_bn', its_stride, its_groups)
                y = y if branch == '2c' else y.relu()
            name = f'res{stage}_{block}_branch1'
            x = (y + (x if block else _conv_norm(blobs, x, f'{name}_w', f'{name}_bn', stride))).relu()
            block += 1
        outputs.append(x)
    return outputs[1:]


def _mobilenetv2(weights: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Torchvision's, by its names: what is before each stride of 16 and 32, and the end."""
    x = F.relu6(_conv_norm(weights, x, 'features.0.0.weight', 'features.0.1', stride=2))
    outputs = []
    for feature in range(1, 18):
        stride = 2 if feature in (2, 4, 7, 14) else 1
        if feature in (7, 14):
            outputs.append(x)
        y, i = x, 0
        while (conv := f'features.{feature}.conv.{i}.weight') in weights:
            depthwise = weights[conv].shape[1:] == (1, 3, 3)
            groups = len(weights[conv]) if depthwise else 1
            y = _conv_norm(weights, y, conv, f'features.{feature}.conv.{i + 1}', stride if depthwise else 1, groups)
            i += 3
            y = F.relu6(y) if f'features.{feature}.conv.{i}.weight' in weights else y
        x = x + y if x.shape == y.shape else y
    return [*outputs, x]


@pytest.mark.parametrize('network', ['ResNet', 'ResNeXt', 'MobileNetV2'])
def test_what_the_backbones_compute(network: str) -> None:
    """The same features as a network that is written by the file's own names."""
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    if network == 'MobileNetV2':
        weights = released.filled(released.mobilenetv2())
        expected = _mobilenetv2(weights, image)
    else:
        resnext = network == 'ResNeXt'
        weights = released.filled(released.resnet_caffe2(101 if resnext else 50, resnext, statistics=resnext))
        expected = _detectron(weights, image, resnext)
    conversion = _convert(weights)
    backbone = MODELS.build({**released._read(conversion.config).model.backbone, 'init_cfg': None})
    assert load_weights(backbone, conversion.checkpoint['state_dict']) == []
    backbone.eval()
    with torch.no_grad():
        found = backbone(image)
    assert len(found) == len(expected) == 3
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours / theirs.std(), theirs / theirs.std(), rtol=1e-4, atol=1e-4)
        assert theirs.std() > 0


def _renamed(shapes: released.Shapes, key: str) -> released.Shapes:
    return {f'{name}x' if name == key else name: shape for name, shape in shapes.items()}


def _lost_its_prefix(shapes: released.Shapes, key: str) -> released.Shapes:
    return {name.partition('.')[2] if name == key else name: shape for name, shape in shapes.items()}


def _moved_up(shapes: released.Shapes, key: str) -> released.Shapes:
    """Another number in the name, which the templates know as well."""
    last = next((i for i in reversed(range(len(key))) if key[i].isdigit()), None)
    new = f'{key}7' if last is None else f'{key[:last]}{8 if key[last] == "7" else 7}{key[last + 1 :]}'
    return {new if name == key else name: shape for name, shape in shapes.items()}


def _removed(shapes: released.Shapes, key: str) -> released.Shapes:
    return {name: shape for name, shape in shapes.items() if name != key}


def _longer(shapes: released.Shapes, key: str) -> released.Shapes:
    return {**shapes, key: (shapes[key][0] + 1, *shapes[key][1:])}


def _flat(shapes: released.Shapes, key: str) -> released.Shapes:
    return {**shapes, key: ()}


FAULTS = [_renamed, _lost_its_prefix, _moved_up, _removed, _longer, _flat]


def _keys(shapes: released.Shapes, chosen: list[str]) -> list[str]:
    """These, and the first and the last of the file that the model needs."""
    needed = [
        name for name in shapes if not name.startswith(('pixel', 'classifier', 'head.', 'stem.fc', 'features.18'))
    ]
    needed = [name for name in needed if not name.endswith('.num_batches_tracked') and 'fc1000' not in name]
    needed = [name for name in needed if not name.startswith('pred_')]
    return [*chosen, needed[0], needed[-1]]


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('fault', FAULTS)
def test_one_wrong_key(name: str, fault: Callable) -> None:
    shapes, _, chosen = FILES[name]
    keys = _keys(shapes, chosen)
    for key in keys[:2] if fault in (_lost_its_prefix, _moved_up) else keys:
        wrong = fault(shapes, key)
        with pytest.raises(InputError) as error:
            _convert(released.empty(wrong))
        phrases = str(error.value).split('\n  ')[1:]
        if wrong.get(key) is None:
            assert f'{key} is missing' in phrases
            assert all(f'{new} is unknown' in phrases for new in wrong.keys() - shapes.keys() if 'fc' not in new)
        else:
            assert any(phrase.startswith(f'{key} is {wrong[key]} and should be {shapes[key]}') for phrase in phrases)


@pytest.mark.parametrize(
    ('name', 'key', 'shape', 'allowed'),
    [
        ('star', 'pixel_mean', None, True),
        ('star', 'pixel_mean', (3,), False),
        ('star', 'module.pixel_std', (3, 1, 1), False),
        ('paper', 'pixel_mean', (3, 1, 1), False),
        ('VoVNet', 'stem.stem_1/norm.num_batches_tracked', (), True),
        ('VoVNet', 'stem.stem_1/norm.num_batches_tracked', (1,), False),
        ('VoVNet', 'stage2.OSA2_1.concat.OSA2_1_concat/norm.num_batches_tracked', None, True),
        ('star', f'{HEAD}.cls_tower.1.num_batches_tracked', (), False),
        ('ResNet-50', 'stem.conv1.norm.running_mean', (64,), False),  # then all norms need them
        ('star', 'backbone.stem.0.conv.weight', (64, 3, 3, 3), False),  # our name
        ('panoptic', 'sem_seg_head.p6.0.weight', (128, 256, 3, 3), False),
        ('star', 'sem_seg_head.predictor.bias', (54,), False),
    ],
)
def test_optional_and_additional_keys(name: str, key: str, shape: tuple | None, allowed: bool) -> None:
    shapes = _removed(FILES[name][0], key) if shape is None else FILES[name][0] | {key: shape}
    if allowed:
        conversion = _convert(released.empty(shapes))
        left = [name for name in shapes if name not in conversion.translation.left_out]
        assert list(_restored(conversion, 'star')) == left
        return
    with pytest.raises(InputError, match='nothing was written'):
        _convert(released.empty(shapes))


def test_no_statistics_in_a_layout_that_has_them() -> None:
    shapes = {name: shape for name, shape in released.lite_star().items() if 'running' not in name}
    with pytest.raises(InputError, match=r'stem_1/norm\.running_mean is missing\n'):
        _convert(released.empty(shapes))


def test_of_another_model() -> None:
    shapes = released.star(released.vovnet('39'), (512, 768, 1024), lite=True) | {
        'roi_heads.box_head.fc1.weight': (1, 1)
    }
    only = {name: shape for name, shape in shapes.items() if 'maskiou' not in name}
    with pytest.raises(InputError) as error:
        _convert(released.empty(only))
    first, *phrases = str(error.value).split('\n  ')
    assert first == (
        "The checkpoint a.pth can't be converted, it isn't a whole centermask-lite-star_v2-39_fpn_4x_coco in the star "
        'layout; nothing was written, give the file as it was released:'
    )
    missing = [f'{name} is missing' for name in shapes if 'maskiou' in name]
    assert phrases == [*missing, 'roi_heads.box_head.fc1.weight is unknown']
    mask_rcnn = {name: shape for name, shape in PANOPTIC.items() if not name.startswith(('proposal', 'roi', 'sem'))}
    with pytest.raises(InputError, match=r"isn't a whole centermask-star_r50_fpn_3x_coco in the star layout") as error:
        _convert(released.empty(mask_rcnn | {'proposal_generator.rpn_head.conv.weight': (256, 256, 3, 3)}))
    phrases = str(error.value).split('\n  ')[1:]
    assert 'proposal_generator.fcos_head.cls_logits.weight is missing' in phrases
    assert phrases[-1] == 'proposal_generator.rpn_head.conv.weight is unknown'
    with pytest.raises(InputError, match='has no layout that is known here'):
        _convert({'a': torch.zeros(1)})
    with pytest.raises(InputError, match='has the layout of MMDetection already'):
        convert(Contents(small_model('star').state_dict(), 'state_dict', {}), 'a.pth', CONFIGS)


@pytest.mark.parametrize('eps', [0.0, 1e-5])
def test_absorbed_statistics_leave_scale_and_bias(eps: float) -> None:
    norm = nn.Sequential(nn.BatchNorm2d(1000, eps=eps)).eval()
    scale, bias = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    weights = with_statistics(norm, {'0.weight': scale, '0.bias': bias})
    assert load_weights(norm, weights) == []
    x = torch.randn(2, 1000, 3, 3, generator=torch.Generator().manual_seed(1))
    expected = scale[:, None, None] * x + bias[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected, rtol=2e-7, atol=5e-7)  # float32's own rounding


@pytest.mark.parametrize('kind', ['running_mean', 'running_var'])
def test_statistics_of_the_file_are_not_replaced(kind: str) -> None:
    weights = {'0.weight': torch.ones(2), f'0.{kind}': torch.full((2,), 7.0)}
    assert with_statistics(nn.Sequential(nn.BatchNorm2d(2)), weights) == weights


@pytest.mark.parametrize(('shapes', 'layers'), [(released.lite_star(5), 5), (released.lite_paper(1), 2)])
def test_another_number_of_classes(shapes: released.Shapes, layers: int) -> None:
    conversion = _convert(released.empty(shapes))
    weights = conversion.checkpoint['state_dict']
    assert 'dataset_meta' not in conversion.checkpoint['meta']
    assert len(weights['roi_head.mask_head.conv_logits.bias']) == layers
    classes = len(weights['bbox_head.conv_cls.bias'])
    line = usage(conversion.checkpoint, Path('c.py'), Path('my file.pth'), Path('tools')).splitlines()[0]
    assert line == (
        f"python tools/test.py c.py 'my file.pth' --cfg-options model.num_classes={classes} "
        'test_dataloader.dataset.metainfo.classes=NAMES'
    )
    with pytest.raises(InputError, match=r"a\.pth doesn't say its classes"):
        keep_classes(conversion.checkpoint, 'a.pth', ['person'])


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_training_starts_from_the_release_with_other_classes(recipe: str) -> None:
    """Of a released file of 3 classes all but the layers of the classes goes into a model of 2."""
    theirs = to_released(small_model(recipe).state_dict(), recipe)
    from_file = to_ours(theirs).weights
    model = MODELS.build(small_model_config(recipe, {'num_classes': 2}))
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start_from(model, {'state_dict': dict(from_file)}, 'a.pth')
    of_classes = ('bbox_head.conv_cls', 'roi_head.mask_head.conv_logits', 'roi_head.mask_iou_head.fc_mask_iou')
    for name, tensor in model.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(tensor, fresh[name] if name.startswith(of_classes) else from_file[name]), name


NAMES = ('person', 'traffic light', 'car')


def _detector(recipe: str) -> dict:
    meta = {'config': 'centermask_x', 'dataset_meta': {'classes': NAMES, 'palette': [(0, 0, 1), (0, 0, 2), (0, 0, 3)]}}
    return {'meta': meta, 'state_dict': small_model(recipe).state_dict(), 'released': {}}


@pytest.mark.parametrize('recipe', ['star', 'paper'])
@pytest.mark.parametrize('names', [['car', 'traffic light'], ['traffic light'], ['traffic light', 'car', 'person']])
def test_fewer_classes_same_detections(recipe: str, names: list[str]) -> None:
    whole = _detector(recipe)
    few = keep_classes(whole, 'a.pth', names)
    assert few['meta']['dataset_meta']['classes'] == names
    assert few['meta']['dataset_meta']['palette'] == [(0, 0, NAMES.index(name) + 1) for name in names]
    results = []
    for checkpoint, classes in ((whole, 3), (few, len(names))):
        changes = {'num_classes': classes, 'test_cfg.max_per_img': 10_000, 'test_cfg.score_thr': 0.0}
        model = MODELS.build(small_model_config(recipe, changes)).eval()
        assert load_weights(model, checkpoint['state_dict']) == []
        with torch.no_grad():
            results.append(model.predict(*batch(model, [picture(64, 80)], [sample(64, 80)]))[0].pred_instances)
    all_of_them, kept = results
    assert len(all_of_them) > len(kept) > 0 or len(names) == 3
    for label, name in enumerate(names):
        expected = all_of_them[all_of_them.labels == NAMES.index(name)]
        found = kept[kept.labels == label]
        assert len(found) == len(expected) > 0
        # Equal scores may stand in another order, and boxes may be equal.
        both = [torch.cat([i.bboxes, i.scores[:, None], i.mask_scores[:, None]], 1) for i in (expected, found)]
        found = found[torch.cdist(*both).argmin(1)]
        for kind in ('bboxes', 'scores', 'mask_scores', 'masks'):
            torch.testing.assert_close(found[kind], expected[kind], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        (['person', 'trafic light'], "has no class 'trafic light': did you mean traffic light?"),
        (['Person'], "has no class 'Person': did you mean person?"),
        (['zebra'], "has no class 'zebra': it has person, traffic light, car."),
        (['car', 'person', 'car'], "'car' is given twice: name each class once."),
    ],
)
def test_classes_that_it_cannot_keep(names: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        keep_classes(_detector('star'), 'a.pth', names)
    assert str(error.value).startswith('--keep-classes: ') and str(error.value).endswith(words)
