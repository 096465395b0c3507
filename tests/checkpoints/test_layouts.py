"""Checkpoints of every layout are recognised and translated name by name in both directions."""

import json
from pathlib import Path

import pytest
import torch
from helpers import released_files as released
from helpers.release_layout import recipe_of, to_release
from helpers.small_model import small_model

from centermask.checkpoints.layouts import RECIPES, from_release
from centermask.utils.errors import InputError

VOVNET, RESNET, MOBILENETV2 = (512, 768, 1024), (512, 1024, 2048), (32, 96, 320)
CLASSIFIER = {'classifier.weight': (1000, 512), 'classifier.bias': (1000,)}
LAST_CONV = {'features.18.0.weight': (1280, 320, 1, 1), 'features.18.1.running_mean': (1280,)}
STEM_FC = {'stem.fc.weight': (1000, 2048), 'stem.fc.bias': (1000,)}
COUNTERS = {'stem.stem_1/norm.num_batches_tracked': ()}
FILES = {  # layout, shapes, number of unused tensors
    'star': ('star', released.lite_star(), 2),
    'star, deformable': ('star', released.star(released.vovnet('39', dcn=True), VOVNET), 0),
    'star, depthwise': ('star', released.star(released.vovnet('19-slim-dw'), (256, 384, 512), lite=True), 0),
    'star, MobileNetV2': ('star', released.star(released.mobilenetv2(), MOBILENETV2, lite=True), 0),
    'star, ResNeXt': ('star', released.star(released.resnet_star(101, resnext=True), RESNET), 0),
    'panoptic': ('panoptic', released.star(released.resnet_star(50), RESNET) | released.semantic_head(), 0),
    'paper': ('paper', released.lite_paper(), 0),
    'paper, ResNet': ('paper', released.paper(released.resnet_paper(50), RESNET), 0),
    'paper, MobileNetV2': ('paper', released.paper(released.mobilenetv2(), MOBILENETV2, lite=True, scoring=False), 0),
    'VoVNet': ('vovnet', released.vovnet('19-slim') | CLASSIFIER, 2),
    'VoVNet, depthwise': ('vovnet', released.vovnet('19-slim-dw') | COUNTERS, 0),
    'MobileNetV2': ('mobilenetv2', released.mobilenetv2() | LAST_CONV | CLASSIFIER, 4),
    'ResNet, no statistics': ('detectron2', released.resnet_star(50, statistics=False) | STEM_FC, 2),
    'ResNeXt': ('detectron2', released.resnet_star(101, resnext=True) | {'stem.conv1.bias': (64,)}, 1),
    'blobs': ('caffe2', released.resnet_caffe2(50), 3),
    'blobs, statistics': ('caffe2', released.resnet_caffe2(101, resnext=True, statistics=True), 3),
    'timm 19b_dw': ('timm', released.timm_vovnet('19-dw'), 2),
    'timm 39b': ('timm', released.timm_vovnet('39'), 2),
    'timm 57b': ('timm', released.timm_vovnet('57'), 2),
}


@pytest.mark.parametrize('name', FILES)
def test_recognised_and_bijective(name: str) -> None:
    layout, shapes, unused = FILES[name]
    for prefix in ('', 'module.') if layout in RECIPES else ('', 'module.backbone.bottom_up.'):
        weights = released.empty(released.with_prefix(prefix, shapes))
        translation = from_release(weights)
        assert (translation.layout, translation.prefix) == (layout, prefix)
        assert not translation.unknown
        assert len(translation.unused) == unused
        assert len(translation.weights) == len(weights) - unused
        used = [key for key in weights if key not in translation.unused]
        assert [translation.released_name(key) for key in translation.weights] == used  # the file's order
        assert from_release(translation.weights) is None


def test_synthetic_names_are_the_released_ones(shared: Path) -> None:
    """The helper's names and shapes, which the other tests use, are those of the releases."""
    folder = shared / 'parity'
    for file, name in {
        'star/lite_V_19_slim': 'star',
        'star/V_39_dcn': 'star, deformable',
        'star/lite_V_19_slim_dw': 'star, depthwise',
        'star/lite_MobileNetV2': 'star, MobileNetV2',
        'star/X_101': 'star, ResNeXt',
        'star/panoptic_R_50': 'panoptic',
        'paper/lite_V_19': 'paper',
        'paper/R_50': 'paper, ResNet',
        'paper/lite_MobileNetV2': 'paper, MobileNetV2',
    }.items():
        listed = {key: tuple(shape) for key, shape in json.loads((folder / f'{file}.keys.json').read_text()).items()}
        assert {key: shape for key, shape in FILES[name][1].items() if key not in released.PIXELS} == listed, name


def test_every_released_model(shared: Path) -> None:
    """All tensors of all released files are translated, and back."""
    files = [file for recipe in ('paper', 'star') for file in (shared / 'parity' / recipe).glob('*.keys.json')]
    assert len(files) == 32
    for file in files:
        shapes = {name: tuple(shape) for name, shape in json.loads(file.read_text()).items()}
        translation = from_release(released.empty(shapes))
        assert translation.layout == ('panoptic' if 'panoptic' in file.name else file.parent.name)
        assert not translation.unknown and not translation.unused
        assert to_release(translation.weights, translation.layout).keys() == shapes.keys()


def test_instance_branch_of_a_panoptic_file() -> None:
    """A model without semantic head gets all but the semantic head and level P2, by the names of its own pyramid."""
    shapes = released.star(released.resnet_star(50), RESNET)
    translation = from_release(released.empty(shapes | released.semantic_head()), panoptic=False)
    assert translation.layout == 'star' and not translation.unknown
    assert translation.unused == [*released.semantic_head()]
    assert translation.weights.keys() == from_release(released.empty(shapes)).weights.keys()


def test_caffe2_with_momenta() -> None:
    """The layout is recognised among twice as many unused tensors."""
    shapes = released.resnet_caffe2(50)
    momenta = {f'{name}_momentum': shape for name, shape in shapes.items()}
    more = {f'last_out_L1000_{kind}': (1,) for kind in 'wb'}
    translation = from_release(released.empty(shapes | momenta | more))
    assert translation.layout == 'caffe2' and not translation.unknown
    assert len(translation.unused) == 3 + len(momenta) + 2


def test_a_tensor_unused_in_one_layout_is_unknown_in_another() -> None:
    translation = from_release(released.empty(released.lite_paper() | {'classifier.weight': (3,), 'pixel_mean': (3,)}))
    assert list(translation.unknown) == ['classifier.weight', 'pixel_mean']


def test_other_layouts() -> None:
    assert from_release(small_model('star').state_dict()) is None
    assert from_release({'a.weight': torch.zeros(1), 'b': torch.zeros(1)}) is None
    torchvision = {name.replace('stem.', '').replace('res_', ''): t for name, t in FILES['paper, ResNet'][1].items()}
    backbone = {name.removeprefix('backbone.body.'): shape for name, shape in torchvision.items() if 'body' in name}
    assert from_release(released.empty(backbone)) is None  # MMDetection has torchvision's names


def test_half_of_the_names_are_not_enough() -> None:
    teacher, student = (released.with_prefix(prefix, released.vovnet('19-slim')) for prefix in ('teacher.', 'student.'))
    assert from_release(released.empty(teacher | student)) is None


@pytest.mark.parametrize('recipe', ['star', 'paper', 'panoptic'])
def test_round_trip_of_models(recipe: str) -> None:
    weights = small_model(recipe).state_dict()
    assert recipe_of(weights) == recipe
    released_weights = to_release(weights, recipe)
    assert len(released_weights) == len([name for name in weights if not name.endswith('num_batches_tracked')])
    again = from_release(released_weights)
    assert again.layout == recipe and not again.unknown and not again.unused
    for name, tensor in again.weights.items():
        assert torch.equal(tensor, weights[name]) and tensor.shape == weights[name].shape


def test_parts_that_no_release_has() -> None:
    weights = small_model('star').state_dict()
    with pytest.raises(InputError, match=r'^semantic_head\.weight has no name in the star layout'):
        to_release({**weights, 'semantic_head.weight': torch.zeros(1)}, 'star')


@pytest.mark.parametrize(
    ('arch', 'mean', 'std'), [('39', (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ('57', 3 * (0.5,), 3 * (0.5,))]
)
def test_timm_input_scaling_is_folded_into_the_first_conv(arch: str, mean: tuple, std: tuple) -> None:
    """timm's response to normalised RGB in [0, 1] equals ours to BGR in [0, 255] less the mean."""
    weights = released.empty(released.timm_vovnet(arch))
    original = torch.randn(64, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weights['stem.0.conv.weight'] = original
    translation = from_release(weights)
    scaled = translation.weights['stem.0.conv.weight']
    assert scaled.dtype == original.dtype

    bgr = torch.randint(0, 256, (1, 3, 32, 40), generator=torch.Generator().manual_seed(1)).double()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (mean, std))
    expected = torch.conv2d((bgr.flip(1) / 255 - mean) / std, original.double())
    found = torch.conv2d(bgr - 255 * mean.flip(1), scaled.double())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert translation.weights['stem.0.bn.weight'] is weights['stem.0.bn.weight']  # nothing else changes


def test_stems_of_other_shapes_are_not_scaled() -> None:
    for shape in [(), (64,), (64, 3), (64, 3, 2, 2, 2), (64, 1, 3, 3)]:
        weights = released.empty(released.timm_vovnet('39') | {'stem.0.conv.weight': shape})
        assert from_release(weights).weights['stem.0.conv.weight'].shape == shape
