"""Configs build and hold their recipe's facts. Schedules: test_schedules.py; augmentation: datasets/."""

import csv
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.read_configs import CONFIGS, find_config, read_config
from helpers.release_layout import to_release
from mmcv.ops import ModulatedDeformConv2d
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from torch import nn

from centermask import CenterMask
from centermask.sag_mask_head import SpatialAttention
from centermask.vovnet import EffectiveSE

NAMES = sorted(
    path.stem for path in CONFIGS.rglob('*_coco.py') if path.stem.startswith(('centermask', 'fcos'))
)  # baselines have tests of their own
FCOS = 'fcos_r50_fpn_1x_coco'
DEMO, CUSTOM = (f'centermask-lite-star_v2-19-slim_{data}' for data in ('shapes', 'custom'))
PANOPTIC_DEMO, PANOPTIC_CUSTOM = (f'panoptic-{name}' for name in (DEMO, CUSTOM))
PANOPTIC_FILE = 'custom_panoptic/annotations/panoptic_train'
# One config for each distinct model.
DISTINCT = [
    *(FCOS, DEMO, CUSTOM, PANOPTIC_DEMO, PANOPTIC_CUSTOM),
    *(f'centermask_{part}_fpn_1x_coco' for part in ('r50-eq1', 'r50-eq2', 'r50-sam', 'r50-p3-p7')),
    *(f'centermask_{backbone}_fpn_1x_coco' for backbone in ('hrnetv2-w18', 'v1-39', 'v1-39-residual-se')),
    *(f'centermask_{backbone}_fpn_3x_coco' for backbone in ('mobilenetv2', 'r50', 'x101', 'v2-99')),
    *(f'centermask-lite_{backbone}_fpn_4x_coco' for backbone in ('mobilenetv2', 'v2-39')),
    *(f'centermask-star_{backbone}_fpn_3x_coco' for backbone in ('r50', 'x101', 'v2-39', 'v2-39-dcn', 'v2-39-timm')),
    *(f'centermask-lite-star_{backbone}_fpn_4x_coco' for backbone in ('v2-39', 'v2-19-slim-dw', 'mobilenetv2')),
]
RECIPES = {'paper': 'centermask_v2-39_fpn_3x_coco', 'star': 'centermask-star_v2-39_fpn_3x_coco'}
LITE = {'paper': 'centermask-lite_v2-39_fpn_4x_coco', 'star': 'centermask-lite-star_v2-39_fpn_4x_coco'}


@pytest.fixture(autouse=True)
def own_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The annotation files from which the configs for own data read their classes."""
    stuff = [{'id': number, 'name': name, 'isthing': 0} for number, name in ((9, 'wall'), (2, 'table'))]
    cup = {'id': 7, 'name': 'cup', 'isthing': 1}
    for name, categories in (('custom/annotations/train', [cup]), (PANOPTIC_FILE, [*stuff, cup])):
        annotations = tmp_path / f'data/{name}.json'
        annotations.parent.mkdir(parents=True)
        annotations.write_text(json.dumps({'images': [], 'annotations': [], 'categories': categories}))
    monkeypatch.chdir(tmp_path)


@cache
def _model(name: str) -> CenterMask:
    """Build the model on the meta device, without its backbone's file."""
    config = read_config(name)
    config.model.backbone.init_cfg = None
    with torch.device('meta'):
        return MODELS.build(config.model)


def _backbone(name: str) -> str:
    return name.split('_')[1]


def _recipe(name: str) -> str:
    return 'star' if '-star' in name else 'paper'


def test_the_headline_takes_five_files() -> None:
    """The config itself and its bases: model, data, schedule, runtime."""

    def files(path: Path) -> set[Path]:
        bases = Config._get_base_files(path)
        return {path}.union(*(files((path.parent / base).resolve()) for base in bases))

    assert len(files(find_config('centermask_v2-99_fpn_3x_coco'))) <= 5


@pytest.mark.parametrize('name', DISTINCT)
def test_builds_and_dumps(name: str, tmp_path: Path) -> None:
    config = read_config(name)
    config.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == config.to_dict()
    assert _model(name).bbox_head.num_classes == config.model.num_classes
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert DATASETS.get(loader.dataset.type)
        assert all(TRANSFORMS.build(transform) for transform in loader.dataset.pipeline)


def test_coco_paths() -> None:
    for name in NAMES:
        config = read_config(name)
        train, val = config.train_dataloader.dataset, config.val_dataloader.dataset
        assert (train.ann_file, train.data_prefix.img) == ('annotations/instances_train2017.json', 'train2017/'), name
        assert (val.ann_file, val.data_prefix.img) == ('annotations/instances_val2017.json', 'val2017/'), name
        assert train.data_root == val.data_root == 'data/coco/'
        assert train.filter_cfg.filter_empty_gt and val.test_mode
        assert config.test_evaluator == config.val_evaluator
        assert config.val_evaluator.metric == (['bbox'] if name == FCOS else ['bbox', 'segm'])
        assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 16


# Model


def _keys_file(name: str) -> str:
    """Return the list of the released model's tensors, below parity/."""
    method, backbone = name.split('_')[:2]
    key = {'mobilenetv2': 'MobileNetV2', 'r50': 'R_50', 'r101': 'R_101', 'x101': 'X_101'}.get(
        backbone, backbone.replace('v2', 'V').replace('-', '_')
    )
    return f'{_recipe(name)}/{"lite_" if "lite" in method else ""}{key}.keys.json'


@pytest.mark.parametrize('name', [n for n in NAMES if re.search('_[34]x_', n) and 'timm' not in n])
def test_has_the_tensors_of_the_release(shared: Path, name: str) -> None:
    """Names and shapes, translated to the release's layout: none missing and none too many."""
    expected = json.loads((shared / 'parity' / _keys_file(name)).read_text())
    released = to_release(_model(name).state_dict(), _recipe(name))
    assert {key: list(tensor.shape) for key, tensor in released.items()} == expected


@pytest.mark.parametrize('backbone', ['r50', 'r101', 'x101', 'v2-39', 'v2-57', 'v2-99'])
def test_panoptic_models(shared: Path, backbone: str) -> None:
    """They have the tensors of their releases, and differ from the instance configs in P2 and the semantic part."""
    name = f'panoptic-centermask-star_{backbone}_fpn_3x_coco'
    key = _keys_file(name).replace('star/', 'star/panoptic_')
    expected = json.loads((shared / 'parity' / key).read_text())
    released = to_release(_model(name).state_dict(), 'panoptic')
    assert {key: list(tensor.shape) for key, tensor in released.items()} == expected

    panoptic, instances = (read_config(n).model for n in (name, name.removeprefix('panoptic-')))
    assert (panoptic.pop('type'), instances.pop('type')) == ('PanopticCenterMask', 'CenterMask')
    assert panoptic.semantic_head.pop('loss_seg').loss_weight == 0.5
    del panoptic['semantic_head'], panoptic['panoptic_fusion']
    assert panoptic.data_preprocessor.pop('pad_seg') and panoptic.data_preprocessor.pop('seg_pad_value') == 255
    for part, key, before in (('backbone', 'out_indices', (1, 2, 3)), ('neck', 'num_outs', 5)):
        assert instances[part].pop(key, before) == before
    assert panoptic.backbone.pop('out_indices') == (0, 1, 2, 3) and panoptic.neck.pop('num_outs') == 6
    assert panoptic.neck.in_channels[1:] == instances.neck.pop('in_channels') and panoptic.neck.pop('in_channels')
    assert panoptic == instances


def test_schedules_share_the_model() -> None:
    for backbone in ('r50', 'r101', 'x101', 'v2-39', 'v2-57', 'v2-99'):
        one, two, three = (
            read_config(f'centermask_{backbone}_fpn_{length}_coco').model for length in ('1x', '2x', '3x')
        )
        assert one == two == three, backbone


COMMON = {
    'data_preprocessor.bgr_to_rgb': False,
    'data_preprocessor.pad_size_divisor': 32,
    'data_preprocessor.std': [1.0, 1.0, 1.0],
    'neck.add_extra_convs': 'on_output',
    'neck.relu_before_extra_convs': True,
    'neck.num_outs': 5,
    'bbox_head.center_sampling': True,
    'bbox_head.centerness_on_reg': True,
    'bbox_head.conv_bias': True,
    'bbox_head.strides': [8, 16, 32, 64, 128],
    'bbox_head.loss_bbox.type': 'SmoothedGIoULoss',
    'roi_head.mask_roi_extractor.featmap_strides': [8, 16, 32],
    'roi_head.mask_roi_extractor.roi_layer.output_size': 14,
    'train_cfg.max_per_img': 100,
    'train_cfg.mask_size': 28,
    'train_cfg.assigner.pos_iou_thr': 0.5,
    'test_cfg.nms_pre': 1000,
    'test_cfg.nms.iou_threshold': 0.6,
    'test_cfg.max_per_img': 50,
    'test_cfg.mask_thr_binary': 0.5,
    'backbone.norm_cfg.requires_grad': False,
}
OF_RECIPE = {
    'paper': {
        'data_preprocessor.mean': [102.9801, 115.9465, 122.7717],
        'backbone.norm_cfg.eps': 0,
        'bbox_head.norm_on_bbox': False,
        'bbox_head.loss_bbox.enclosing_eps': 1e-7,
        'roi_head.mask_roi_extractor.roi_layer.sampling_ratio': 2,
        'roi_head.mask_roi_extractor.roi_layer.aligned': False,
        'train_cfg.assigner.iou_calculator.type': 'LegacyBboxOverlaps2D',
        'test_cfg.score_thr': 0.03,
        'test_cfg.nms.offset': 1,
    },
    'star': {
        'data_preprocessor.mean': [103.53, 116.28, 123.675],
        'bbox_head.norm_on_bbox': True,
        'roi_head.mask_roi_extractor.roi_layer.sampling_ratio': 0,
        'roi_head.mask_roi_extractor.roi_layer.aligned': True,
        'train_cfg.sampler.num': 128,
        'train_cfg.sampler.pos_fraction': 1.0,
        'test_cfg.score_thr': 0.05,
    },
}


def _at(config: dict, key: str) -> Any:
    for name in key.split('.'):
        config = config[name]
    return config


@pytest.mark.parametrize('recipe', RECIPES)
def test_recipe(recipe: str) -> None:
    """Settings in the config, then what the model is built with by default."""
    config, expected, paper = read_config(RECIPES[recipe]), COMMON | OF_RECIPE[recipe], recipe == 'paper'
    assert {key: _at(config.model, key) for key in expected} == expected
    head, roi_head = _model(RECIPES[recipe]).bbox_head, _model(RECIPES[recipe]).roi_head
    assert (head.norm_on_bbox, head.sqrt_score, head.sync_avg_factor) == (not paper,) * 3
    assert head.legacy_boxes == roi_head.mask_roi_extractor.legacy_boxes == paper
    assert head.conv_cls.out_channels == 80
    assert {m.num_groups for m in head.modules() if isinstance(m, nn.GroupNorm)} == {32}
    assert head.center_sample_radius == 1.5
    assert (head.loss_cls.gamma, head.loss_cls.alpha) == (2.0, 0.25)
    assert roi_head.pasting == ('resized' if paper else 'sampled')
    assert roi_head.mask_roi_extractor.assignment == 'scale_adaptive'
    channels = 81 if paper else 80  # the first release has a background channel
    assert roi_head.mask_head.conv_logits.out_channels == channels
    assert roi_head.mask_iou_head.fc_mask_iou.out_features == channels
    assert roi_head.mask_iou_head.loss_iou.loss_weight == 0.5
    assert roi_head.mask_iou_head.area_ratio == 'all_polygons'


@pytest.mark.parametrize('recipe', LITE)
@pytest.mark.parametrize('names, width, convs', [(LITE, 128, 2), (RECIPES, 256, 4)])
def test_lite_has_half_the_width_and_the_convs(names: dict[str, str], width: int, convs: int, recipe: str) -> None:
    model = _model(names[recipe])
    assert model.neck.out_channels == model.bbox_head.feat_channels == width
    assert len(model.bbox_head.cls_convs) == len(model.bbox_head.reg_convs) == convs
    for head in (model.roi_head.mask_head, model.roi_head.mask_iou_head):
        assert (len(head.convs), head.conv_out_channels) == (convs, width)


def test_tables_1_and_2() -> None:
    """Each row switches one part: attention, mask scoring, Eq. 1 or 2, the levels."""
    parts = {}
    for row in ('r50', 'r50-sam', 'r50-eq2', 'r50-eq1', 'r50-p3-p4', 'r50-p3-p6', 'r50-p3-p7'):
        roi_head = _model(f'centermask_{row}_fpn_1x_coco').roi_head
        parts[row] = (
            roi_head.mask_iou_head is not None,
            isinstance(roi_head.mask_head.spatial_attention, SpatialAttention),
            roi_head.mask_roi_extractor.assignment,
            len(roi_head.mask_roi_extractor.featmap_strides),
        )
    assert parts == {
        'r50': (True, True, 'scale_adaptive', 3),
        'r50-sam': (False, True, 'scale_adaptive', 3),
        'r50-eq2': (False, False, 'scale_adaptive', 3),
        'r50-eq1': (False, False, 'fpn', 3),
        'r50-p3-p4': (True, True, 'scale_adaptive', 2),
        'r50-p3-p6': (True, True, 'scale_adaptive', 4),
        'r50-p3-p7': (True, True, 'scale_adaptive', 5),
    }
    assert _model(FCOS).roi_head is None


# Backbone


@pytest.mark.parametrize('name', [name for name in DISTINCT if name not in (DEMO, PANOPTIC_DEMO)])
def test_norms_of_the_backbone_are_frozen(name: str) -> None:
    norms = [m for m in _model(name).train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {0 if _recipe(name) == 'paper' else 1e-5}
    assert not any(norm.training or norm.weight.requires_grad or norm.bias.requires_grad for norm in norms)


@pytest.mark.parametrize('recipe, end', [('', '1x'), ('', '3x'), ('-star', '3x')])
def test_strides_of_resnets(recipe: str, end: str) -> None:
    """ResNets have their stride in the 1×1 convs, ResNeXt in the 3×3 convs."""
    for backbone, strides in {'r50': ((2, 2), (1, 1)), 'r101': ((2, 2), (1, 1)), 'x101': ((1, 1), (2, 2))}.items():
        model = _model(f'centermask{recipe}_{backbone}_fpn_{end}_coco').backbone
        assert (model.layer2[0].conv1.stride, model.layer2[0].conv2.stride) == strides
        assert model.layer1[0].conv2.weight.shape == ((256, 8, 3, 3) if backbone == 'x101' else (64, 64, 3, 3))
        assert len(model.layer3) == (6 if backbone == 'r50' else 23)


def test_variants_of_vovnet() -> None:
    dcn, timm = (_model(f'centermask-star_v2-39-{kind}_fpn_3x_coco').backbone.stages for kind in ('dcn', 'timm'))
    assert [any(isinstance(m, ModulatedDeformConv2d) for m in stage.modules()) for stage in dcn] == [False, *[True] * 3]
    for stage in timm:
        *others, last = [isinstance(block.attention, EffectiveSE) for block in stage.blocks]
        assert last and not any(others)


STARTS = {
    'r50': 'open-mmlab://detectron2/resnet50_caffe',
    'r101': 'open-mmlab://detectron2/resnet101_caffe',
    **{f'hrnetv2-w{width}': f'open-mmlab://msra/hrnetv2_w{width}' for width in (18, 32, 48)},
    'v2-19-dw-timm': 'https://huggingface.co/timm/ese_vovnet19b_dw.ra_in1k/resolve/main/pytorch_model.bin',
    'v2-39-timm': 'https://huggingface.co/timm/ese_vovnet39b.ra_in1k/resolve/main/pytorch_model.bin',
    'v2-57-timm': 'https://huggingface.co/timm/ese_vovnet57b.ra4_e3600_r256_in1k/resolve/main/pytorch_model.bin',
}
X101 = {
    'paper': 'https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/20171220/X-101-32x8d.pkl',
    'star': 'open-mmlab://detectron2/resnext101_32x8d',
}


def test_backbones_start_from_the_recipes_weights(shared: Path) -> None:
    """The first release lacks some, which are then the second's; Table 4's start from V2's."""
    with (shared / 'paper/pretrained_backbones.csv').open(newline='') as file:
        listed = {
            (row['recipe'], row['backbone'].lower().replace('vovnet', '').replace('-', '')): row['weights']
            for row in csv.DictReader(file)
        }
    for name in NAMES:
        recipe, backbone = _recipe(name), _backbone(name)
        if backbone.startswith('r50'):
            backbone = 'r50'
        released = re.sub(r'-(dcn|residual|se)', '', backbone).replace('v1', 'v2').replace('-', '')
        expected = STARTS.get(backbone) or listed.get((recipe, released)) or listed.get(('star', released))
        if backbone == 'x101':
            expected = X101[recipe]
        assert expected and read_config(name).model.backbone.init_cfg.checkpoint == expected, name


# Test-time augmentation


@pytest.mark.parametrize('name', [*RECIPES.values(), *LITE.values()])
def test_augmented_testing(name: str) -> None:
    """Three scales with the test scale in the middle, each flipped and not."""
    config = read_config(name)
    resizes, flips, (pack,) = config.tta_pipeline[-1].transforms
    assert [resize.scale for resize in resizes][1] == config.test_dataloader.dataset.pipeline[1].scale
    assert len(resizes) == 3
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert all(resize.type == config.test_dataloader.dataset.pipeline[1].type for resize in resizes)
    keys = TRANSFORMS.build(pack).meta_keys
    assert {'flip', 'flip_direction', 'scale_factor', 'ori_shape', 'img_shape'} <= set(keys)
    assert ('flip_offset' in keys) == (_recipe(name) == 'paper')
    assert config.tta_model.type == 'CenterMaskTTA'


def _transforms(node: Any) -> list[dict]:
    """Return all transforms of a pipeline, those within test-time augmentation too."""
    if isinstance(node, dict):
        return [node, *_transforms(list(node.get('transforms', [])))]
    return [transform for entry in node for transform in _transforms(entry)]


@pytest.mark.parametrize('name', [*RECIPES.values(), *LITE.values(), DEMO, FCOS, 'retinamask_r101_fpn_2x_coco'])
def test_no_image_gets_too_thin(name: str) -> None:
    """A flipped line of pixels is an array that torch refuses; MMDetection's ``Resize`` fails below one pixel."""
    config = read_config(name)
    pipelines = config.train_dataloader.dataset.pipeline, config.test_dataloader.dataset.pipeline, config.tta_pipeline
    for pipeline in pipelines:
        resizes = [transform for transform in _transforms(pipeline) if 'Resize' in transform.type]
        assert resizes
        for shape in ((1, 4000, 3), (4000, 1, 3)):
            for transform in resizes:
                done = TRANSFORMS.build(transform)({'img': np.zeros(shape, np.uint8), 'img_shape': shape[:2]})
                assert min(done['img'].shape[:2]) == 2


# Own data and the demo


def test_classes_of_own_data() -> None:
    config = read_config(CUSTOM)
    assert config.model.num_classes == 1
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.metainfo.classes == ('cup',)
        assert loader.dataset.data_root == 'data/custom/'
    assert config.val_evaluator.ann_file == config.test_evaluator.ann_file == 'data/custom/annotations/val.json'
    assert max(config.param_scheduler[-1].milestones) < config.train_cfg.max_iters


def test_classes_of_own_panoptic_data() -> None:
    """Stuff is in the order of its ids, as in the semantic PNGs."""
    config = read_config(PANOPTIC_CUSTOM)
    model = _model(PANOPTIC_CUSTOM)
    assert (model.bbox_head.num_classes, model.semantic_head.num_stuff_classes) == (1, 2)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.metainfo.to_dict() == {'classes': ('cup',), 'stuff_classes': ('table', 'wall')}
        assert loader.dataset.data_root == 'data/custom_panoptic/'
    assert all('custom_panoptic' in metric.ann_file for metric in config.val_evaluator)


def test_demo() -> None:
    """Weights start random, so BN trains."""
    config = read_config(DEMO)
    assert config.model.backbone.init_cfg is None
    assert config.model.num_classes == len(config.train_dataloader.dataset.metainfo.classes) >= 4
    norms = [m for m in _model(DEMO).train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(norm.training and norm.weight.requires_grad for norm in norms)
