"""Conversion of released checkpoints: the config, the tensors, and the features."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import released_files as released
from helpers.release_layout import to_release
from helpers.small_model import small_model, small_model_config
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import Tensor, nn

from centermask.checkpoints.conversion import Conversion, convert
from centermask.checkpoints.layouts import RECIPES, from_release
from centermask.checkpoints.loading import add_bn_statistics, load_pretrained, load_weights
from centermask.checkpoints.reading import Contents
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
RESNET = (512, 1024, 2048)


def _convert(weights: Mapping[str, Tensor], source: str = 'a.pth') -> Conversion:
    return convert(Contents(dict(weights), 'model', dict(iteration=1, optimizer={})), source, CONFIGS)


def test_every_released_model(shared: Path) -> None:
    """Files with the released names and shapes are assigned the config of their recipe and longest schedule."""
    files = [file for recipe in ('paper', 'star') for file in (shared / 'parity' / recipe).glob('*.keys.json')]
    assert len(files) == 32
    for file in files:
        recipe, name = file.parent.name, file.name.removesuffix('.keys.json')
        weights = released.empty({key: tuple(shape) for key, shape in json.loads(file.read_text()).items()})
        checkpoint, config, unused = _convert(weights)
        panoptic = 'panoptic-' if 'panoptic' in name else ''
        backbone = name.replace('panoptic_', '').replace('lite_', '').lower().replace('_', '-')
        backbone = backbone.replace('v-', 'v2-') if backbone.startswith('v-') else backbone.replace('-', '')
        lite, of_star = ('-lite' if 'lite' in name else ''), ('-star' if recipe == 'star' else '')
        # The lite recipe has one schedule, 4x; of the others 3x is the longest.
        assert config.stem == f'{panoptic}centermask{lite}{of_star}_{backbone}_fpn_{4 if lite else 3}x_coco', name
        assert checkpoint['meta']['dataset_meta']['classes'] == CocoDataset.METAINFO['classes']
        assert unused == ['iteration', 'optimizer']
        assert len(checkpoint['state_dict']) == len(weights)


@pytest.mark.parametrize(
    ('file', 'config'),
    [
        ('centermask-R-50-FPN-ms-2x.pth', 'r50_fpn_2x'),
        ('https://somewhere/centermask-R-50-FPN-ms-3x.pth?dl=1', 'r50_fpn_3x'),
        ('centermask-V2-39-FPN-ms-2x.pth', 'r50_fpn_3x'),  # another model's name
    ],
)
def test_schedule_by_the_name_of_the_file(file: str, config: str) -> None:
    shapes = released.paper(released.resnet_paper(50), RESNET)
    assert _convert(released.empty(shapes), file).config.stem == f'centermask_{config}_coco'


CLASSIFIER = {'classifier.weight': (1000, 512), 'classifier.bias': (1000,)}
COUNTER = {'stage2.OSA2_1.concat.OSA2_1_concat/norm.num_batches_tracked': ()}
HEAD = 'proposal_generator.fcos_head'
LAYOUTS: dict[str, tuple[released.Shapes, str, str]] = {  # shapes, config, a key
    'star': (released.lite_star(), 'centermask-lite-star_v2-19-slim_fpn_4x_coco', f'{HEAD}.cls_logits.weight'),
    'paper': (
        released.with_prefix('module.', released.lite_paper()),
        'centermask-lite_v2-19_fpn_4x_coco',
        'module.roi_heads.mask.predictor.mask_fcn_logits.weight',
    ),
    'panoptic': (
        released.PIXELS | released.star(released.resnet_star(50), RESNET) | released.semantic_head(),
        'panoptic-centermask-star_r50_fpn_3x_coco',
        'sem_seg_head.p5.4.norm.weight',
    ),
    'vovnet': (
        released.vovnet('19-slim') | CLASSIFIER | COUNTER,
        'centermask-lite-star_v2-19-slim_fpn_4x_coco',
        'stage5.OSA5_1.ese.fc.bias',
    ),
    'mobilenetv2': (
        released.mobilenetv2() | {'features.18.0.weight': (1280, 320, 1, 1)} | CLASSIFIER,
        'centermask-lite-star_mobilenetv2_fpn_4x_coco',
        'features.17.conv.7.bias',
    ),
    'detectron2': (
        released.resnet_star(50, statistics=False) | {'stem.fc.weight': (1000, 2048)},
        'centermask-star_r50_fpn_3x_coco',
        'res2.0.shortcut.weight',
    ),
    'caffe2': (
        released.resnet_caffe2(101, resnext=True, statistics=True),
        'centermask-star_x101_fpn_3x_coco',
        'res3_0_branch2b_w',
    ),
    'timm': (
        released.timm_vovnet('39'),
        'centermask-star_v2-39-timm_fpn_3x_coco',
        'stages.3.blocks.1.attn.fc.bias',
    ),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts(layout: str) -> None:
    shapes, config, _ = LAYOUTS[layout]
    conversion = _convert(released.empty(shapes))
    assert (conversion.checkpoint['meta']['source'], conversion.config.stem) == (layout, config)
    assert ('dataset_meta' in conversion.checkpoint['meta']) == (layout in RECIPES)
    model = Config.fromfile(conversion.config).model
    with torch.device('meta'):
        module = MODELS.build(model if layout in RECIPES else model.backbone)
    assert load_weights(module, conversion.checkpoint['state_dict']) == []


def _renamed(shapes: released.Shapes, key: str) -> released.Shapes:
    return {f'{name}x' if name == key else name: shape for name, shape in shapes.items()}


def _removed(shapes: released.Shapes, key: str) -> released.Shapes:
    return {name: shape for name, shape in shapes.items() if name != key}


def _longer(shapes: released.Shapes, key: str) -> released.Shapes:
    return {**shapes, key: (shapes[key][0] + 1, *shapes[key][1:])}


@pytest.mark.parametrize(
    ('layout', 'fault'), [*((layout, _renamed) for layout in LAYOUTS), ('star', _removed), ('caffe2', _longer)]
)
def test_one_wrong_key(layout: str, fault: Callable) -> None:
    shapes, config, key = LAYOUTS[layout]
    with pytest.raises(InputError) as error:
        _convert(released.empty(fault(shapes, key)))
    message = str(error.value)
    assert message.startswith(f"The checkpoint a.pth can't be converted, it isn't a complete {config} in the {layout} ")
    assert f'{key} is ' in message
    assert fault is not _renamed or f'{key}x is ' in message


def test_no_statistics_in_a_layout_that_has_them() -> None:
    shapes = {name: shape for name, shape in released.lite_star().items() if 'running' not in name}
    with pytest.raises(InputError, match=r'stem_1/norm\.running_mean is absent in the file'):
        _convert(released.empty(shapes))


def test_other_files() -> None:
    with pytest.raises(InputError, match='has no layout that is known here'):
        _convert({'a': torch.zeros(1)})
    with pytest.raises(InputError, match='has the layout of MMDetection already'):
        convert(Contents(small_model('star').state_dict(), 'state_dict', {}), 'a.pth', CONFIGS)


def test_another_number_of_stuff_classes() -> None:
    shapes = released.star(released.resnet_star(50), RESNET, classes=5) | released.semantic_head(classes=8)
    checkpoint, config, _ = _convert(released.empty(shapes))
    assert config.stem == 'panoptic-centermask-star_r50_fpn_3x_coco'
    assert len(checkpoint['state_dict']['semantic_head.conv_logits.bias']) == 8


@pytest.mark.parametrize(('shapes', 'channels'), [(released.lite_star(5), 5), (released.lite_paper(1), 2)])
def test_another_number_of_classes(shapes: released.Shapes, channels: int) -> None:
    checkpoint = _convert(released.empty(shapes)).checkpoint
    assert 'dataset_meta' not in checkpoint['meta']
    assert len(checkpoint['state_dict']['roi_head.mask_head.conv_logits.bias']) == channels


def _conv_norm(
    weights: Mapping[str, Tensor], x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1
) -> Tensor:
    """Return the output of a conv and its norm, by Caffe2's blobs or torchvision's names."""
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
    """Return the features of Detectron's ResNet, whose blocks begin with their stride, or ResNeXt (in the 3×3)."""
    x = _conv_norm(blobs, x, 'conv1_w', 'res_conv1_bn', stride=2).relu()
    x = F.max_pool2d(x, 3, 2, padding=1)
    outputs = []
    for stage in (2, 3, 4, 5):
        block = 0
        while f'res{stage}_{block}_branch2a_w' in blobs:
            stride = 2 if stage > 2 and block == 0 else 1
            strides, groups = ((1, stride, 1), (1, 32, 1)) if resnext else ((stride, 1, 1), (1, 1, 1))
            y = x
            for branch, conv_stride, conv_groups in zip(('2a', '2b', '2c'), strides, groups, strict=True):
                name = f'res{stage}_{block}_branch{branch}'
                y = _conv_norm(blobs, y, f'{name}_w', f'{name}_bn', conv_stride, conv_groups)
                y = y if branch == '2c' else y.relu()
            name = f'res{stage}_{block}_branch1'
            x = (y + (x if block else _conv_norm(blobs, x, f'{name}_w', f'{name}_bn', stride))).relu()
            block += 1
        outputs.append(x)
    return outputs[1:]


def _mobilenetv2(weights: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Return the features of torchvision's network before each stride of 16 and 32, and at its end."""
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
def test_features_of_the_backbones(network: str) -> None:
    """Features equal those of a plain implementation that uses the file's own names."""
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    if network == 'MobileNetV2':
        weights = released.filled(released.mobilenetv2())
        expected = _mobilenetv2(weights, image)
    else:
        resnext = network == 'ResNeXt'
        weights = released.filled(released.resnet_caffe2(101 if resnext else 50, resnext, statistics=resnext))
        expected = _detectron(weights, image, resnext)
    conversion = _convert(weights)
    backbone = MODELS.build({**Config.fromfile(conversion.config).model.backbone, 'init_cfg': None})
    assert load_weights(backbone, conversion.checkpoint['state_dict']) == []
    backbone.eval()
    with torch.no_grad():
        found = backbone(image)
    assert len(found) == len(expected) == 3
    for level, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(level / reference.std(), reference / reference.std(), rtol=1e-4, atol=1e-4)
        assert reference.std() > 0


@pytest.mark.parametrize('eps', [0.0, 1e-5])
def test_added_statistics_keep_scale_and_bias(eps: float) -> None:
    norm = nn.Sequential(nn.BatchNorm2d(1000, eps=eps)).eval()
    scale, bias = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    weights = add_bn_statistics(norm, {'0.weight': scale, '0.bias': bias})
    assert load_weights(norm, weights) == []
    x = torch.randn(2, 1000, 3, 3, generator=torch.Generator().manual_seed(1))
    expected = scale[:, None, None] * x + bias[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected, rtol=2e-7, atol=5e-7)  # float32's own rounding


def test_statistics_of_the_file_are_not_replaced() -> None:
    weights = {'0.weight': torch.ones(2), '0.running_mean': torch.full((2,), 7.0)}
    assert add_bn_statistics(nn.Sequential(nn.BatchNorm2d(2)), weights) == weights


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_training_starts_from_the_release_with_other_classes(recipe: str) -> None:
    """A model of 2 classes takes all of a file of 3 but the layers of the classes."""
    from_file = from_release(to_release(small_model(recipe).state_dict(), recipe)).weights
    model = MODELS.build(small_model_config(recipe, {'num_classes': 2}))
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_pretrained(model, {'state_dict': dict(from_file)}, 'a.pth')
    of_classes = ('bbox_head.conv_cls', 'roi_head.mask_head.conv_logits', 'roi_head.mask_iou_head.fc_mask_iou')
    for name, tensor in model.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(tensor, fresh[name] if name.startswith(of_classes) else from_file[name]), name
