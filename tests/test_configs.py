"""Every config parses and builds, and holds its recipe's numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from centermask import CenterMask, VoVNet

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
PAPER = ('centermask_v2-99_fpn_3x_coco', 'centermask_r50_fpn_1x_coco', 'centermask-lite_v2-39_fpn_4x_coco')
STAR = ('centermask-star_v2-39_fpn_3x_coco', 'centermask-lite-star_v2-19-slim_fpn_4x_coco')
OTHERS = ('centermask-lite-star_v2-19-slim_shapes', 'centermask-lite-star_v2-19-slim_custom')
COCO = pytest.mark.parametrize('name', PAPER + STAR)
EVERY = pytest.mark.parametrize('name', PAPER + STAR + OTHERS)


@pytest.fixture(autouse=True)
def own_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example for own data reads its classes from the annotations that it names."""
    annotations = tmp_path / 'data/custom/annotations/train.json'
    annotations.parent.mkdir(parents=True)
    annotations.write_text('{"images": [], "annotations": [], "categories": [{"id": 7, "name": "cup"}]}')
    monkeypatch.chdir(tmp_path)


def _config(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


def _model(config: Config) -> CenterMask:
    """The model without memory, and without the file that its backbone starts from."""
    config.model.backbone.init_cfg = None
    with torch.device('meta'):
        return MODELS.build(config.model)


def _part(config: Config, kind: str) -> dict[str, Any]:
    """The arguments of the only transform of this type in the training data's pipeline."""
    (transform,) = [t for t in config.train_dataloader.dataset.pipeline if t.type == kind]
    return transform


def test_every_config_is_tested() -> None:
    assert {path.stem for path in CONFIGS.glob('*.py')} == set(PAPER + STAR + OTHERS)


@EVERY
def test_dumps_and_reloads(name: str, tmp_path: Path) -> None:
    config = _config(name)
    config.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == config.to_dict()


@EVERY
def test_builds(name: str) -> None:
    config = _config(name)
    model = _model(config)
    assert model.bbox_head.num_classes == config.model.num_classes
    assert config.custom_imports == dict(imports=['centermask'])
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert DATASETS.get(loader.dataset.type)
        assert all(TRANSFORMS.build(transform) for transform in loader.dataset.pipeline)


@COCO
def test_coco(name: str) -> None:
    """Where MMDetection has it, and only images with objects in training."""
    config = _config(name)
    train, val = config.train_dataloader.dataset, config.val_dataloader.dataset
    assert (train.data_root, train.ann_file, train.data_prefix) == (
        'data/coco/',
        'annotations/instances_train2017.json',
        dict(img='train2017/'),
    )
    assert (val.ann_file, val.data_prefix) == ('annotations/instances_val2017.json', dict(img='val2017/'))
    assert config.val_evaluator.ann_file == 'data/coco/annotations/instances_val2017.json'
    assert config.val_evaluator.metric == ['bbox', 'segm']
    assert train.filter_cfg.filter_empty_gt
    assert val.test_mode
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 16
    assert _part(config, 'LoadAnnotations').poly2mask is False
    assert config.test_dataloader == config.val_dataloader


# Model


@pytest.mark.parametrize(
    'name, millions', [('centermask_v2-99_fpn_3x_coco', 96.9), ('centermask_r50_fpn_1x_coco', 51.2)]
)
def test_parameters(name: str, millions: float) -> None:
    """As the papers' tables count them: without what belongs to BN."""
    model = _model(_config(name))
    of_norms = {p for part in model.modules() if isinstance(part, nn.BatchNorm2d) for p in part.parameters()}
    assert of_norms
    assert sum(p.numel() for p in model.parameters() if p not in of_norms) / 1e6 == pytest.approx(millions, abs=0.1)


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
    'bbox_head.plus_one': True,
    'bbox_head.average_normalizers': False,
    'bbox_head.loss_bbox.enclosing_eps': 1e-7,
    'roi_head.pasting': 'rounded',
    'roi_head.mask_roi_extractor.plus_one': True,
    'roi_head.mask_roi_extractor.roi_layer.sampling_ratio': 2,
    'roi_head.mask_roi_extractor.roi_layer.aligned': False,
    'roi_head.mask_head.background_channel': True,
    'roi_head.mask_iou_head.background_channel': True,
    'train_cfg.assigner.iou_calculator.type': 'InclusiveOverlaps2D',
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


def _at(config: dict, key: str) -> Any:
    for name in key.split('.'):
        config = config[name]
    return config


@COCO
def test_recipe(name: str) -> None:
    model = _config(name).model
    expected = COMMON | (OF_PAPER if name in PAPER else OF_STAR)
    assert {key: _at(model, key) for key in expected} == expected


@COCO
def test_built_recipe(name: str) -> None:
    """What the configs leave to defaults."""
    model, paper = _model(_config(name)), name in PAPER
    head, roi_head = model.bbox_head, model.roi_head
    assert (head.norm_on_bbox, head.sqrt_score, head.average_normalizers) == (not paper,) * 3
    assert (head.plus_one, roi_head.mask_roi_extractor.plus_one) == (paper, paper)
    assert roi_head.pasting == ('rounded' if paper else 'exact')
    assert head.center_sample_radius == 1.5
    assert (head.loss_cls.gamma, head.loss_cls.alpha) == (2.0, 0.25)
    assert roi_head.mask_iou_head.loss_iou.loss_weight == 0.5
    assert roi_head.mask_iou_head.share == 'exact_area'
    assert roi_head.mask_roi_extractor.assignment == 'scale_adaptive'
    channels = 81 if paper else 80
    assert roi_head.mask_head.conv_logits.out_channels == channels
    assert roi_head.mask_iou_head.fc_mask_iou.out_features == channels
    assert head.conv_cls.out_channels == 80
    assert {m.num_groups for m in head.modules() if isinstance(m, nn.GroupNorm)} == {32}


@COCO
def test_lite(name: str) -> None:
    """Half the width and half the convs."""
    model, lite = _model(_config(name)), '-lite' in name
    width, convs = (128, 2) if lite else (256, 4)
    assert model.neck.out_channels == width
    assert len(model.bbox_head.cls_convs) == len(model.bbox_head.reg_convs) == convs
    assert len(model.roi_head.mask_head.convs) == len(model.roi_head.mask_iou_head.convs) == convs
    assert model.bbox_head.feat_channels == model.roi_head.mask_head.conv_out_channels == width
    assert model.roi_head.mask_iou_head.conv_out_channels == width


@COCO
def test_norms_of_the_backbone(name: str) -> None:
    """Frozen, with the epsilon of the recipe."""
    model = _model(_config(name)).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {norm.eps for norm in norms} == {0 if name in PAPER else 1e-5}
    assert not any(norm.training or norm.weight.requires_grad or norm.bias.requires_grad for norm in norms)


@pytest.mark.parametrize('name', [name for name in PAPER + STAR if 'v2' in name])
def test_no_stage_of_vovnet_is_frozen(name: str) -> None:
    backbone = _model(_config(name)).backbone
    assert isinstance(backbone, VoVNet)
    assert all(m.weight.requires_grad for m in backbone.modules() if isinstance(m, nn.Conv2d))


def test_resnet() -> None:
    """Caffe style, stem and first stage frozen."""
    backbone = _model(_config('centermask_r50_fpn_1x_coco')).backbone
    assert backbone.layer2[0].conv1.stride == (2, 2) and backbone.layer2[0].conv2.stride == (1, 1)
    frozen = {name.split('.')[0] for name, p in backbone.named_parameters() if not p.requires_grad and 'conv' in name}
    assert frozen == {'conv1', 'layer1'}


@pytest.mark.parametrize(
    'name, checkpoint',
    [
        ('centermask_v2-99_fpn_3x_coco', '3wflmwz0wx50ywt/vovnet99_ese_state_dict.pth'),
        ('centermask_r50_fpn_1x_coco', 'open-mmlab://detectron2/resnet50_caffe'),
        ('centermask-lite_v2-39_fpn_4x_coco', '8rhfcw53hc49k5x/vovnet39_ese_state_dict.pth'),
        ('centermask-star_v2-39_fpn_3x_coco', 'q98pypf96rhtd8y/vovnet39_ese_detectron2.pth'),
        ('centermask-lite-star_v2-19-slim_fpn_4x_coco', '8h5ybmi4ftbcom0/vovnet19_ese_slim_detectron2.pth'),
    ],
)
def test_start_of_the_backbone(name: str, checkpoint: str) -> None:
    init_cfg = _config(name).model.backbone.init_cfg
    assert init_cfg.type == 'Pretrained'
    assert init_cfg.checkpoint.endswith(checkpoint)


def test_urls_of_the_releases(shared: Path) -> None:
    listed = (shared / 'paper/pretrained_backbones.csv').read_text()
    for name in PAPER + STAR:
        checkpoint = _config(name).model.backbone.init_cfg.checkpoint
        assert checkpoint.startswith('open-mmlab://') or checkpoint in listed


# Pictures


@pytest.mark.parametrize(
    'name, kind, train, test',
    [
        ('centermask_v2-99_fpn_3x_coco', 'RandomResize', [(1333, 640), (1333, 800)], (1333, 800)),
        ('centermask_r50_fpn_1x_coco', 'FloorResize', (1333, 800), (1333, 800)),
        ('centermask-lite_v2-39_fpn_4x_coco', 'RandomResize', [(1000, 580), (1000, 600)], (1000, 600)),
        (
            'centermask-star_v2-39_fpn_3x_coco',
            'RandomChoiceResize',
            [(1333, side) for side in range(640, 801, 32)],
            (1333, 800),
        ),
        ('centermask-lite-star_v2-19-slim_fpn_4x_coco', 'RandomChoiceResize', [(1000, 580), (1000, 600)], (1000, 600)),
    ],
)
def test_scales(name: str, kind: str, train: Any, test: tuple[int, int]) -> None:
    """Resized by PIL's bilinear filter, by the recipe's rounding."""
    config = _config(name)
    resize = _part(config, kind)
    assert resize.get('scales', resize.get('scale')) == train
    at_test = config.test_dataloader.dataset.pipeline[1]
    assert at_test.scale == test
    if name in PAPER:
        assert kind == 'FloorResize' or resize.resize_type == 'FloorResize'
        assert at_test.type == 'FloorResize'
    else:
        assert resize.backend == at_test.backend == 'pillow'
        assert resize.keep_ratio and at_test.keep_ratio


@COCO
def test_boxes_and_flips(name: str) -> None:
    kinds = [transform.type for transform in _config(name).train_dataloader.dataset.pipeline]
    assert ('InclusiveBoxes' in kinds, 'InclusiveFlip' in kinds, 'RandomFlip' in kinds) == (
        (True, True, False) if name in PAPER else (False, False, True)
    )


@COCO
def test_augmented_testing(name: str) -> None:
    """Three scales, the test scale in the middle, each flipped and not."""
    config = _config(name)
    resizes, flips, (pack,) = config.tta_pipeline[-1].transforms
    assert [resize.scale for resize in resizes][1] == config.test_dataloader.dataset.pipeline[1].scale
    assert len(resizes) == 3
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert all(resize.type == config.test_dataloader.dataset.pipeline[1].type for resize in resizes)
    keys = TRANSFORMS.build(pack).meta_keys
    assert {'flip', 'flip_direction', 'scale_factor', 'ori_shape', 'img_shape'} <= set(keys)
    assert ('flip_offset' in keys) == (name in PAPER)
    assert config.tta_model.type == 'CenterMaskTTA'


# Schedule


def _rates(config: Config, iterations: list[int]) -> list[float]:
    """The learning rate at these iterations. Far from warm-up and milestones only the schedulers' clocks move."""
    optimizer = torch.optim.SGD(
        [nn.Parameter(torch.zeros(1))], **{k: v for k, v in config.optim_wrapper.optimizer.items() if k != 'type'}
    )
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s), default_args=dict(optimizer=optimizer)) for s in config.param_scheduler
    ]
    rates, changes = {}, {0, *(m for s in config.param_scheduler for m in s.get('milestones', ()))}
    busy = {i for change in changes for i in range(change - 2, change + 1100)} | set(iterations)
    for i in range(max(iterations) + 1):
        if i in iterations:
            rates[i] = optimizer.param_groups[0]['lr']
        for scheduler in schedulers:
            if i + 1 in busy:
                scheduler.step()
            else:
                scheduler.last_step += 1
    return [rates[i] for i in iterations]


STEPS = {'1x': (90_000, 60_000, 80_000), '3x': (270_000, 210_000, 250_000), '4x': (360_000, 300_000, 340_000)}


@COCO
def test_schedule(name: str) -> None:
    """Constant third until iteration 500 (paper), or linear from a thousandth to iteration 1000 (star); two steps."""
    config = _config(name)
    length, first, second = STEPS[name.split('_')[-2]]
    assert config.train_cfg.max_iters == length
    assert config.train_cfg.type == 'IterBasedTrainLoop'
    iterations = [0, 250, 499, 500, 999, 1000, first - 1, first, second - 1, second]
    if name in PAPER:
        warm_up = [1 / 3, 1 / 3, 1 / 3, 1, 1, 1]
    else:
        warm_up = [0.001 + 0.999 * i / 1000 for i in (0, 250, 499, 500, 999, 1000)]
    expected = [0.01 * factor for factor in (*warm_up, 1, 0.1, 0.1, 0.01)]
    assert _rates(config, iterations) == pytest.approx(expected, rel=1e-6)


def test_schedule_of_1x_ends() -> None:
    assert _rates(_config('centermask_r50_fpn_1x_coco'), [59_999, 60_000, 89_999]) == pytest.approx([0.01, 1e-3, 1e-4])


def _groups(config: Config) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every trainable parameter."""
    model = _model(config)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    settings = {
        id(p): (group['lr'], group['weight_decay']) for group in optimizer.param_groups for p in group['params']
    }
    return {name: settings[id(p)] for name, p in model.named_parameters() if p.requires_grad}


@COCO
def test_optimizer(name: str) -> None:
    optimizer = _config(name).optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)


@pytest.mark.parametrize('name', PAPER)
def test_biases_of_the_paper_recipe(name: str) -> None:
    """Twice the rate and no decay, those of GroupNorm too; its weights are decayed."""
    groups = _groups(_config(name))
    assert {groups[key] for key in groups if key.endswith('.bias')} == {(0.02, 0.0)}
    assert {groups[key] for key in groups if not key.endswith('.bias')} == {(0.01, 1e-4)}
    assert groups['bbox_head.reg_convs.0.gn.bias'] == (0.02, 0.0)
    assert groups['bbox_head.reg_convs.0.gn.weight'] == (0.01, 1e-4)


@pytest.mark.parametrize('name', STAR)
def test_norms_of_the_star_recipe(name: str) -> None:
    """No decay of GroupNorm; everything else alike."""
    groups = _groups(_config(name))
    assert {groups[key] for key in groups if '.gn.' in key} == {(0.01, 0.0)}
    assert {groups[key] for key in groups if '.gn.' not in key} == {(0.01, 1e-4)}


# Own data and the demo


def test_classes_of_own_data() -> None:
    config = _config('centermask-lite-star_v2-19-slim_custom')
    assert config.model.num_classes == 1
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.metainfo.classes == ('cup',)
        assert loader.dataset.data_root == 'data/custom/'
    assert config.val_evaluator.ann_file == config.test_evaluator.ann_file == 'data/custom/annotations/val.json'
    assert max(config.param_scheduler[-1].milestones) < config.train_cfg.max_iters


def test_demo() -> None:
    """It starts from random weights, so its BN trains; one number sets all classes."""
    config = _config('centermask-lite-star_v2-19-slim_shapes')
    assert config.model.backbone.init_cfg is None
    assert config.model.num_classes == len(config.train_dataloader.dataset.metainfo.classes) >= 4
    norms = [m for m in _model(config).train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(norm.training and norm.weight.requires_grad for norm in norms)
