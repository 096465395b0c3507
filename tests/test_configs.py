"""Every config parses and builds, and holds its recipe's numbers.

Schedules are tested in test_schedules.py, what becomes of images in datasets/test_augmentation.py.
"""

import csv
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.read_configs import read_config
from mmcv.ops import ModulatedDeformConv2d
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from torch import nn

from centermask import CenterMask
from centermask.checkpoints.layouts import to_release
from centermask.sag_mask_head import SpatialAttention
from centermask.vovnet import EffectiveSE

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
BACKBONES = {
    'fcos': {'1x': 'r50'},
    'centermask': {
        '1x': 'r50-sam r50-eq2 r50-eq1 r50-p3-p7 r50-p3-p6 r50-p3-p4 '  # rows of Tables 1 and 2
        'mobilenetv2 r50 r101 x101 v2-19 v2-39 v2-57 v2-99 hrnetv2-w18 hrnetv2-w32 hrnetv2-w48 v1-39 v1-57 v1-99 '
        'v1-39-residual v1-57-residual v1-99-residual v1-39-residual-se v1-57-residual-se v1-99-residual-se',
        '2x': 'r50 r101 x101 v2-39 v2-57 v2-99',
        '3x': 'mobilenetv2 r50 r101 x101 v2-19 v2-39 v2-57 v2-99',
    },
    'centermask-lite': {'4x': 'mobilenetv2 r50 v2-19 v2-39'},
    'centermask-star': {'3x': 'r50 r101 x101 v2-39 v2-57 v2-99 v2-39-dcn v2-57-dcn v2-99-dcn v2-39-timm v2-57-timm'},
    'centermask-lite-star': {'4x': 'mobilenetv2 v2-19 v2-39 v2-19-slim v2-19-slim-dw v2-19-dw-timm'},
}


def _names(*methods: str) -> tuple[str, ...]:
    return tuple(
        f'{method}_{backbone}_fpn_{schedule}_coco'
        for method in methods
        for schedule, backbones in BACKBONES[method].items()
        for backbone in backbones.split()
    )


PAPER = _names('fcos', 'centermask', 'centermask-lite')
STAR = _names('centermask-star', 'centermask-lite-star')
# Rows of Table 1, and released models that were trained without it; MobileNetV2 at 1x, which wasn't released, has it.
WITHOUT_SCORING = (
    'centermask_r50-sam_fpn_1x_coco',
    'centermask_r50-eq2_fpn_1x_coco',
    'centermask_r50-eq1_fpn_1x_coco',
    'centermask_mobilenetv2_fpn_3x_coco',
    'centermask_v2-19_fpn_3x_coco',
    'centermask-lite_mobilenetv2_fpn_4x_coco',
)
OTHERS = tuple(f'centermask-lite-star_v2-19-slim_{data}' for data in ('shapes', 'custom'))
FCOS = 'fcos_r50_fpn_1x_coco'  # without a mask branch
COCO = pytest.mark.parametrize('name', PAPER + STAR)
WITH_MASKS = pytest.mark.parametrize('name', [name for name in PAPER + STAR if name != FCOS])
EVERY = pytest.mark.parametrize('name', PAPER + STAR + OTHERS)


@pytest.fixture(autouse=True)
def own_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example for own data reads its classes from the annotations that it names."""
    annotations = tmp_path / 'data/custom/annotations/train.json'
    annotations.parent.mkdir(parents=True)
    annotations.write_text('{"images": [], "annotations": [], "categories": [{"id": 7, "name": "cup"}]}')
    monkeypatch.chdir(tmp_path)


@cache
def _model(name: str) -> CenterMask:
    """The model without memory, and without the file that its backbone starts from. Tests share it."""
    config = read_config(name)
    config.model.backbone.init_cfg = None
    with torch.device('meta'):
        return MODELS.build(config.model)


def _backbone(name: str) -> str:
    return name.split('_')[1]


def _part(config: Config, kind: str) -> dict[str, Any]:
    """The arguments of the only transform of this type in the training data's pipeline."""
    (transform,) = [t for t in config.train_dataloader.dataset.pipeline if t.type == kind]
    return transform


def test_every_config_is_tested() -> None:
    """But for the baselines of Table 5, which have tests of their own."""
    ours = {path.stem for path in CONFIGS.rglob('*.py') if path.stem.startswith(('centermask', 'fcos'))}
    assert ours == set(PAPER + STAR + OTHERS)


@EVERY
def test_dumps_and_reloads(name: str, tmp_path: Path) -> None:
    config = read_config(name)
    config.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == config.to_dict()


@EVERY
def test_builds(name: str) -> None:
    config = read_config(name)
    assert _model(name).bbox_head.num_classes == config.model.num_classes
    assert config.custom_imports == dict(imports=['centermask'])
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert DATASETS.get(loader.dataset.type)
        assert all(TRANSFORMS.build(transform) for transform in loader.dataset.pipeline)


@COCO
def test_coco(name: str) -> None:
    """Where MMDetection has it, and only images with objects in training."""
    config = read_config(name)
    train, val = config.train_dataloader.dataset, config.val_dataloader.dataset
    assert (train.data_root, train.ann_file, train.data_prefix) == (
        'data/coco/',
        'annotations/instances_train2017.json',
        dict(img='train2017/'),
    )
    assert (val.ann_file, val.data_prefix) == ('annotations/instances_val2017.json', dict(img='val2017/'))
    assert config.val_evaluator.ann_file == 'data/coco/annotations/instances_val2017.json'
    assert config.val_evaluator.metric == (['bbox'] if name == FCOS else ['bbox', 'segm'])
    assert config.test_evaluator == config.val_evaluator
    assert train.filter_cfg.filter_empty_gt
    assert val.test_mode
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 16
    assert _part(config, 'LoadAnnotations').poly2mask is False
    assert config.test_dataloader == config.val_dataloader


# Model


def _keys_file(name: str) -> str:
    """The list of the tensors of the released model, below parity/."""
    method, backbone = name.split('_')[:2]
    key = {'mobilenetv2': 'MobileNetV2', 'r50': 'R_50', 'r101': 'R_101', 'x101': 'X_101'}.get(
        backbone, backbone.replace('v2', 'V').replace('-', '_')
    )
    return f'{"star" if "star" in method else "paper"}/{"lite_" if "lite" in method else ""}{key}.keys.json'


@pytest.mark.parametrize(
    'name',
    [n for n in PAPER + STAR if 'timm' not in n and '_1x_' not in n] + ['centermask_r50_fpn_1x_coco'],
)
def test_has_the_tensors_of_the_release(shared: Path, name: str) -> None:
    """Translated back: the same names and shapes, none missing and none too many."""
    expected = json.loads((shared / 'parity' / _keys_file(name)).read_text())
    released = to_release(_model(name).state_dict(), 'paper' if name in PAPER else 'star')
    assert {key: list(tensor.shape) for key, tensor in released.items()} == expected


@pytest.mark.parametrize('backbone', ['r50', 'r101', 'x101', 'v2-39', 'v2-57', 'v2-99'])
def test_schedules_share_the_model(backbone: str) -> None:
    """A row of Table 3 is a released model with another schedule."""
    one, two = (read_config(f'centermask_{backbone}_fpn_{length}_coco') for length in ('1x', '2x'))
    assert one.model == two.model


@WITH_MASKS
def test_mask_scoring(name: str) -> None:
    assert (_model(name).roi_head.mask_iou_head is None) == (name in WITHOUT_SCORING)


COMMON = {
    'data_preprocessor.bgr_to_rgb': False,
    'data_preprocessor.pad_size_divisor': 32,
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
OF_PAPER = {
    'data_preprocessor.mean': [102.9801, 115.9465, 122.7717],
    'data_preprocessor.std': [1.0, 1.0, 1.0],
    'backbone.norm_cfg.eps': 0,
    'bbox_head.norm_on_bbox': False,
    'bbox_head.sqrt_score': False,
    'bbox_head.legacy_boxes': True,
    'bbox_head.sync_avg_factor': False,
    'bbox_head.loss_bbox.enclosing_eps': 1e-7,
    'roi_head.pasting': 'resized',
    'roi_head.sync_avg_factor': False,
    'roi_head.mask_roi_extractor.legacy_boxes': True,
    'roi_head.mask_roi_extractor.roi_layer.sampling_ratio': 2,
    'roi_head.mask_roi_extractor.roi_layer.aligned': False,
    'roi_head.mask_head.legacy_background': True,
    'train_cfg.assigner.iou_calculator.type': 'LegacyBboxOverlaps2D',
    'test_cfg.score_thr': 0.03,
    'test_cfg.nms.offset': 1,
}
OF_STAR = {
    'data_preprocessor.mean': [103.53, 116.28, 123.675],
    'data_preprocessor.std': [1.0, 1.0, 1.0],
    'bbox_head.norm_on_bbox': True,
    'roi_head.mask_roi_extractor.roi_layer.sampling_ratio': 0,
    'roi_head.mask_roi_extractor.roi_layer.aligned': True,
    'train_cfg.sampler.num': 128,
    'train_cfg.sampler.pos_fraction': 1.0,
    'test_cfg.score_thr': 0.05,
}


# What a config has otherwise than its recipe.
OF_CONFIG = {
    'centermask-star_x101_fpn_3x_coco': {'data_preprocessor.std': [57.375, 57.12, 58.395]},
    'centermask-star_v2-57-timm_fpn_3x_coco': {'data_preprocessor.mean': [127.5, 127.5, 127.5]},
    **{
        f'centermask_r50-{levels}_fpn_1x_coco': {'roi_head.mask_roi_extractor.featmap_strides': strides}
        for levels, strides in {
            'p3-p4': [8, 16],
            'p3-p6': [8, 16, 32, 64],
            'p3-p7': [8, 16, 32, 64, 128],
        }.items()
    },
}


def _at(config: dict, key: str) -> Any:
    for name in key.split('.'):
        config = config[name]
    return config


# HRNet's ImageNet weights are those of torchvision's pixels, and its own pyramid has other arguments.
OF_HRNET = {
    'data_preprocessor.bgr_to_rgb': True,
    'data_preprocessor.mean': [123.675, 116.28, 103.53],
    'data_preprocessor.std': [58.395, 57.12, 57.375],
    'neck.type': 'HRFPN',
    'neck.stride': 2,
}
HRFPN_LACKS = ('neck.add_extra_convs', 'neck.relu_before_extra_convs')


@COCO
def test_recipe(name: str) -> None:
    model = read_config(name).model
    expected = COMMON | (OF_PAPER if name in PAPER else OF_STAR) | OF_CONFIG.get(name, {})
    if 'hrnet' in name:
        expected = {key: value for key, value in expected.items() if key not in HRFPN_LACKS} | OF_HRNET
    if name == FCOS:
        assert model.roi_head is None
        expected = {key: value for key, value in expected.items() if not key.startswith('roi_head.')}
    assert {key: _at(model, key) for key in expected} == expected


@COCO
def test_built_recipe(name: str) -> None:
    """What the configs leave to defaults."""
    model, paper = _model(name), name in PAPER
    head, roi_head = model.bbox_head, model.roi_head
    assert (head.norm_on_bbox, head.sqrt_score, head.sync_avg_factor) == (not paper,) * 3
    assert head.legacy_boxes == paper
    assert head.conv_cls.out_channels == 80
    assert {m.num_groups for m in head.modules() if isinstance(m, nn.GroupNorm)} == {32}
    assert head.center_sample_radius == 1.5
    assert (head.loss_cls.gamma, head.loss_cls.alpha) == (2.0, 0.25)
    if name == FCOS:
        assert roi_head is None
        return
    assert roi_head.pasting == ('resized' if paper else 'sampled')
    assert roi_head.mask_roi_extractor.legacy_boxes == paper
    assert roi_head.mask_roi_extractor.assignment == ('fpn' if 'eq1' in name else 'scale_adaptive')
    attention = type(roi_head.mask_head.spatial_attention)
    assert attention is (nn.Identity if 'eq1' in name or 'eq2' in name else SpatialAttention)
    channels = 81 if paper else 80
    assert roi_head.mask_head.conv_logits.out_channels == channels
    if roi_head.mask_iou_head is not None:
        assert roi_head.mask_iou_head.fc_mask_iou.out_features == channels
        assert roi_head.mask_iou_head.loss_iou.loss_weight == 0.5
        assert roi_head.mask_iou_head.area_ratio == 'all_polygons'


@COCO
def test_lite(name: str) -> None:
    """Half the width and half the convs."""
    model, lite = _model(name), '-lite' in name
    width, convs = (128, 2) if lite else (256, 4)
    assert model.neck.out_channels == width
    assert len(model.bbox_head.cls_convs) == len(model.bbox_head.reg_convs) == convs
    assert model.bbox_head.feat_channels == width
    for head in (getattr(model.roi_head, part, None) for part in ('mask_head', 'mask_iou_head')):
        if head is not None:
            assert (len(head.convs), head.conv_out_channels) == (convs, width)


@COCO
def test_norms_of_the_backbone(name: str) -> None:
    """Frozen, with the epsilon of the recipe."""
    model = _model(name).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {norm.eps for norm in norms} == {0 if name in PAPER else 1e-5}
    assert not any(norm.training or norm.weight.requires_grad or norm.bias.requires_grad for norm in norms)


@pytest.mark.parametrize('name', [name for name in PAPER + STAR if _backbone(name)[0] in 'rx'])
def test_resnet(name: str) -> None:
    """ResNets in Caffe's style, ResNeXt with the stride in its 3×3 convs."""
    backbone = _model(name).backbone
    strides = (backbone.layer2[0].conv1.stride, backbone.layer2[0].conv2.stride)
    assert strides == (((1, 1), (2, 2)) if 'x101' in name else ((2, 2), (1, 1)))
    assert backbone.layer1[0].conv2.weight.shape == ((256, 8, 3, 3) if 'x101' in name else (64, 64, 3, 3))
    assert len(backbone.layer3) == (6 if 'r50' in name else 23)


@pytest.mark.parametrize('name', [name for name in PAPER + STAR if _backbone(name)[0] == 'v'])
def test_deformable_stages(name: str) -> None:
    stages = _model(name).backbone.stages
    deformable = [any(isinstance(m, ModulatedDeformConv2d) for m in stage.modules()) for stage in stages]
    assert deformable == ([False, True, True, True] if 'dcn' in name else [False] * 4)


@pytest.mark.parametrize('name', ['centermask-star_v2-39-timm_fpn_3x_coco', 'centermask-star_v2-57-timm_fpn_3x_coco'])
def test_attention_of_timm(name: str) -> None:
    """In the last module of each stage only."""
    for stage in _model(name).backbone.stages:
        *others, last = [isinstance(block.attention, EffectiveSE) for block in stage.blocks]
        assert last and not any(others)


TIMM = 'https://huggingface.co/timm/{}/resolve/main/pytorch_model.bin'
STARTS = {
    'r50': 'open-mmlab://detectron2/resnet50_caffe',
    'r101': 'open-mmlab://detectron2/resnet101_caffe',
    **{f'hrnetv2-w{width}': f'open-mmlab://msra/hrnetv2_w{width}' for width in (18, 32, 48)},
    'v2-19-dw-timm': TIMM.format('ese_vovnet19b_dw.ra_in1k'),
    'v2-39-timm': TIMM.format('ese_vovnet39b.ra_in1k'),
    'v2-57-timm': TIMM.format('ese_vovnet57b.ra4_e3600_r256_in1k'),
}


def _start(name: str) -> str:
    """The backbone as ``STARTS`` names it; every row of Tables 1 and 2 has the same."""
    return 'r50' if _backbone(name).startswith('r50') else _backbone(name)


@pytest.mark.parametrize(
    'name, checkpoint',
    [(name, STARTS[start]) for name in PAPER + STAR if (start := _start(name)) in STARTS]
    + [
        (name, 'https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/20171220/X-101-32x8d.pkl')
        for name in PAPER
        if 'x101' in name
    ]
    + [('centermask-star_x101_fpn_3x_coco', 'open-mmlab://detectron2/resnext101_32x8d')],
)
def test_start_of_the_backbone(name: str, checkpoint: str) -> None:
    assert read_config(name).model.backbone.init_cfg == dict(type='StrictPretrained', checkpoint=checkpoint)


@pytest.mark.parametrize('name', [n for n in PAPER + STAR if _backbone(n)[0] in 'mv' and 'timm' not in n])
def test_start_from_a_release(shared: Path, name: str) -> None:
    """Of the recipe's own backbones, or of the second release's where the first has none; all of Table 4 of V2's."""
    with (shared / 'paper/pretrained_backbones.csv').open(newline='') as file:
        listed = {
            (row['recipe'], row['backbone'].lower().replace('vovnet', '').replace('-', '')): row['weights']
            for row in csv.DictReader(file)
        }
    backbone = re.sub(r'-(dcn|residual|se)', '', _backbone(name)).replace('v1', 'v2').replace('-', '')
    of_star = listed['star', backbone]
    expected = listed.get(('paper', backbone), of_star) if name in PAPER else of_star
    assert read_config(name).model.backbone.init_cfg == dict(type='StrictPretrained', checkpoint=expected)


# Test-time augmentation


@COCO
def test_augmented_testing(name: str) -> None:
    """Three scales, the test scale in the middle, each flipped and not."""
    config = read_config(name)
    resizes, flips, (pack,) = config.tta_pipeline[-1].transforms
    assert [resize.scale for resize in resizes][1] == config.test_dataloader.dataset.pipeline[1].scale
    assert len(resizes) == 3
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert all(resize.type == config.test_dataloader.dataset.pipeline[1].type for resize in resizes)
    keys = TRANSFORMS.build(pack).meta_keys
    assert {'flip', 'flip_direction', 'scale_factor', 'ori_shape', 'img_shape'} <= set(keys)
    assert ('flip_offset' in keys) == (name in PAPER)
    assert config.tta_model.type == 'CenterMaskTTA'


# Own data and the demo


def test_classes_of_own_data() -> None:
    config = read_config('centermask-lite-star_v2-19-slim_custom')
    assert config.model.num_classes == 1
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.metainfo.classes == ('cup',)
        assert loader.dataset.data_root == 'data/custom/'
    assert config.val_evaluator.ann_file == config.test_evaluator.ann_file == 'data/custom/annotations/val.json'
    assert max(config.param_scheduler[-1].milestones) < config.train_cfg.max_iters


def _transforms(node: Any) -> list[dict]:
    """All transforms of a pipeline, those within test-time augmentation too."""
    if isinstance(node, dict):
        return [node, *_transforms(list(node.get('transforms', [])))]
    return [transform for entry in node for transform in _transforms(entry)]


# One of each file of `_base_/datasets` that sets sizes, and those of their own.
@pytest.mark.parametrize(
    'name',
    [
        *OTHERS,
        *(f'centermask_r50_fpn_{schedule}_coco' for schedule in ('1x', '3x')),
        'retinamask_r101_fpn_2x_coco',
        'centermask-lite_r50_fpn_4x_coco',
    ],
)
def test_no_image_gets_too_thin(name: str) -> None:
    """A line of pixels, flipped, is an array that torch refuses; MMDetection's ``Resize`` fails on images under one."""
    config = read_config(name)
    for part in ('train_dataloader.dataset.pipeline', 'test_dataloader.dataset.pipeline', 'tta_pipeline'):
        *path, last = part.split('.')
        node = config
        for key in path:
            node = node[key]
        resizes = [transform for transform in _transforms(node[last]) if 'Resize' in transform.type]
        assert resizes, part
        for shape in ((1, 4000, 3), (4000, 1, 3)):
            for transform in resizes:
                done = TRANSFORMS.build(transform)({'img': np.zeros(shape, np.uint8), 'img_shape': shape[:2]})
                assert min(done['img'].shape[:2]) == 2


def test_demo() -> None:
    """It starts from random weights, so its BN trains; one number sets all classes."""
    name = 'centermask-lite-star_v2-19-slim_shapes'
    config = read_config(name)
    assert config.model.backbone.init_cfg is None
    assert config.model.num_classes == len(config.train_dataloader.dataset.metainfo.classes) >= 4
    norms = [m for m in _model(name).train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(norm.training and norm.weight.requires_grad for norm in norms)
