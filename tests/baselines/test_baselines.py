"""The baselines of Table 5: Mask R-CNN, RetinaMask, ShapeMask, TensorMask and YOLACT."""

from functools import cache
from pathlib import Path

import mmdet
import pytest
import torch
from helpers.read_configs import read_config
from helpers.small_model import Object, noise_image, sample, square, without_gradient
from mmdet.models.dense_heads import AnchorHead
from mmdet.registry import DATASETS, MODELS, RUNNERS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from test_schedules import Schedule
from torch import Tensor, nn

from centermask import CenterMask, RetinaMaskBoxHead, SelfAdjustingSmoothL1Loss
from centermask.checkpoints.loading import count_classes
from centermask.datasets.shapes import make_dataset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/baselines'
MASK_RCNN = ('mask-rcnn_r101_fpn_2x_coco', 'mask-rcnn_x101_fpn_3x_coco')
RETINAMASK = 'retinamask_r101_fpn_2x_coco'
SHAPEMASK = 'shapemask_r101_fpn_2x_coco'
TENSORMASK = ('tensormask_r50_fpn_1x_coco', 'tensormask_r50_fpn_6x_coco', 'tensormask_r101_fpn_6x_coco')
YOLACT = ('yolact-400_r101_coco', 'yolact-550_r50_coco', 'yolact-550_r101_coco', 'yolact-700_r101_coco')
ALL = (*MASK_RCNN, RETINAMASK, SHAPEMASK, *TENSORMASK, *YOLACT)
ONE_OF_EACH = pytest.mark.parametrize('name', [MASK_RCNN[0], RETINAMASK, SHAPEMASK, TENSORMASK[0], YOLACT[1]])
OBJECTS = [square(0, 4, 6, 80, 90), square(2, 30, 20, 70, 44)]


def _config(name: str) -> Config:
    config = read_config(name)
    config.model.backbone.init_cfg = None  # the file that it starts from isn't fetched
    if name == SHAPEMASK:
        config.model.roi_head.priors = None  # nor is that of its priors there
    return config


def _on_meta(config: Config) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(config.model)


@cache
def _model(name: str) -> nn.Module:
    """Return the model on the meta device; tests share it."""
    return _on_meta(_config(name))


def _small(name: str) -> nn.Module:
    """Build the model with an eighth of its backbone's width, fewer layers and proposals, and a fixed seed."""
    config = _config(name)
    model = config.model
    model.backbone.update(depth=50, base_channels=8)
    model.neck.in_channels = [256, 512, 1024, 2048][-len(model.neck.in_channels) :]
    model.neck.in_channels = [channels // 8 for channels in model.neck.in_channels]
    if model.backbone.type == 'ResNeXt':
        model.backbone.update(groups=2, base_width=4)
    if name in MASK_RCNN:
        for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
            proposals.update(nms_pre=20, max_per_img=20)
        model.test_cfg.rcnn.update(max_per_img=5, score_thr=0.0)
    else:
        model.test_cfg.update(max_per_img=5, score_thr=0.0)
    if name in (SHAPEMASK, *TENSORMASK):
        model.test_cfg.nms_pre = 20
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    return built


def _batch(model: nn.Module, name: str, *objects: list[Object], size: int = 128) -> tuple[Tensor, list[DetDataSample]]:
    """Return an image of noise for each list of objects, with masks as the config's loader returns them."""
    samples = [sample(size, size, shapes) for shapes in objects]
    if name in YOLACT:
        for s in samples:
            masks = s.gt_instances.masks
            s.gt_instances.masks = masks.to_bitmap() if len(masks) else BitmapMasks([], size, size)
    images = [noise_image(size, size, seed=i) for i in range(len(objects))]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    return data['inputs'], data['data_samples']


# Every baseline


def test_every_config_is_tested() -> None:
    others = {path.stem for path in CONFIGS.glob('*.py')}
    assert others == set(ALL)


@ONE_OF_EACH
def test_parses_and_reloads(name: str, tmp_path: Path) -> None:
    config = read_config(name)
    config.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == config.to_dict()
    assert config.custom_imports == dict(imports=['centermask'])
    assert RUNNERS.get(config.runner_type) is not None and config.default_scope == 'mmdet'


@pytest.mark.parametrize(
    'name, like',
    [
        (MASK_RCNN[0], 'mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py'),
        (MASK_RCNN[1], 'mask_rcnn/mask-rcnn_x101-32x8d_fpn_ms-poly-1x_coco.py'),
        (RETINAMASK, 'retinanet/retinanet_r101_fpn_1x_coco.py'),
        (YOLACT[1], 'yolact/yolact_r50_1xb8-55e_coco.py'),
    ],
)
def test_has_the_parameters_of_mmdetections(name: str, like: str) -> None:
    """RetinaMask has those of RetinaNet with P6 from P5, and of a mask head with a background channel."""
    reference = Config.fromfile(Path(mmdet.__file__).parent / '.mim/configs' / like)
    reference.model.backbone.init_cfg = None
    if name == RETINAMASK:
        reference.model.neck.add_extra_convs = 'on_output'
    expected = [*_on_meta(reference).parameters()]
    if name == RETINAMASK:
        with torch.device('meta'):
            expected += MODELS.build(dict(type='FCNMaskHead', num_classes=81)).parameters()
    assert sum(p.numel() for p in _model(name).parameters()) == sum(p.numel() for p in expected)


@ONE_OF_EACH
def test_counts_classes(name: str) -> None:
    assert count_classes(_model(name)) == 80


@ONE_OF_EACH
def test_pipelines(name: str, tmp_path: Path) -> None:
    """Images have the sizes of training and testing."""
    make_dataset(tmp_path, 2, seed=0)
    config = _config(name)
    sizes = []
    for loader in (config.train_dataloader, config.test_dataloader):
        data = loader.dataset
        data.update(data_root=str(tmp_path), ann_file='annotations.json', data_prefix=dict(img='images/'))
        data.metainfo = dict(classes=('circle', 'triangle', 'square', 'star', 'cross'))
        packed = DATASETS.build(data)[0]
        sizes.append(tuple(packed['inputs'].shape[1:]))
    if name in YOLACT:
        assert sizes == [(int(name[7:10]),) * 2] * 2
    elif name == SHAPEMASK:
        assert sizes[0][0] in range(819, 1025) and sizes[1] == (1024, 1024)
    else:
        lengths = {RETINAMASK: (640, 800, 1000), TENSORMASK[0]: (800,)}.get(name, range(640, 801))
        assert sizes[0][0] in lengths and sizes[1] == (800, 800)


@pytest.mark.parametrize(
    'name, iterations, steps, images, rate, decay',
    [
        (MASK_RCNN[0], 180_000, [120_000, 160_000], 16, 0.02, 1e-4),
        (MASK_RCNN[1], 270_000, [210_000, 250_000], 16, 0.02, 1e-4),
        (RETINAMASK, 180_000, [120_000, 160_000], 16, 0.01, 1e-4),
        (SHAPEMASK, 45_000, [30_000, 40_000], 64, 0.08, 1e-4),
        (TENSORMASK[0], 90_000, [60_000, 80_000], 16, 0.02, 1e-4),
        (TENSORMASK[2], 540_000, [480_000, 520_000], 16, 0.02, 1e-4),
        (YOLACT[0], 800_000, [280_000, 600_000, 700_000, 750_000], 8, 1e-3, 5e-4),
    ],
)
def test_schedule(name: str, iterations: int, steps: list[int], images: int, rate: float, decay: float) -> None:
    """Check rates after the warm-up, biases' too, on both sides of each step, and the batch size."""
    config = _config(name)
    assert config.train_cfg.type == 'IterBasedTrainLoop' and config.train_cfg.max_iters == iterations
    assert config.auto_scale_lr.base_batch_size == images
    assert config.train_dataloader.batch_size * (1 if name in YOLACT else 8) == images
    layer = nn.Conv2d(1, 1, 1)
    schedule = Schedule(config, nn.Sequential(layer))
    own = {'0.weight': (1, 1), '0.bias': (1, 1) if name in (SHAPEMASK, *TENSORMASK, *YOLACT) else (2, 0)}
    warm = 1000 if name in TENSORMASK else 500
    for iteration in (warm, *(at for step in steps for at in (step - 1, step)), iterations - 1):
        schedule.go_to(iteration)
        now = rate * 0.1 ** sum(iteration >= step for step in steps)
        for parameter, settings in schedule.settings().items():
            factors = own[parameter]
            assert settings == pytest.approx((now * factors[0], decay * factors[1]), rel=1e-6)
    assert schedule.wrapper.optimizer.param_groups[0]['momentum'] == 0.9


@ONE_OF_EACH
def test_trains_a_step_and_detects(name: str) -> None:
    """Losses of an image with objects and one without reach every parameter; results have masks of the images' size."""
    model = _small(name).train()
    losses = model.loss(*_batch(model, name, OBJECTS, []))
    total, logged = model.parse_losses(losses)
    total.backward()
    own = {'loss_prior', 'loss_coarse', 'loss_fine'} if name == SHAPEMASK else {'loss_mask'}
    own |= {'loss_rpn_cls', 'loss_rpn_bbox'} if name in MASK_RCNN else {'loss_segm'} if name in YOLACT else set()
    assert {key for key in logged if 'loss' in key} == {'loss', 'loss_cls', 'loss_bbox', *own}
    assert all(value.isfinite() and (value > 0 or key == 'acc') for key, value in logged.items())
    assert without_gradient(model) == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)

    with torch.no_grad():
        results = model.eval().predict(*_batch(model, name, [], []))
    for result in (r.pred_instances for r in results):
        assert 0 < len(result) <= 5
        assert result.masks.shape == (len(result), 128, 128) and result.masks.dtype == torch.bool
        assert result.bboxes.shape == (len(result), 4) and result.scores.shape == (len(result),)


# Mask R-CNN


@pytest.mark.parametrize('name', MASK_RCNN)
def test_mask_rcnn_shares_input_and_backbone_with_centermask(name: str) -> None:
    """It has the input and the backbone of the paper recipe."""
    config, paper = _config(name), _config(name.replace('mask-rcnn', 'centermask'))
    model, reference = config.model, paper.model
    for key in ('mean', 'std', 'bgr_to_rgb', 'pad_size_divisor'):
        assert model.data_preprocessor[key] == reference.data_preprocessor[key]
    assert dict(model.backbone, out_indices=0) == dict(reference.backbone, out_indices=0)
    assert read_config(name).model.backbone.init_cfg == (
        read_config(name.replace('mask-rcnn', 'centermask')).model.backbone.init_cfg
    )
    assert config.train_dataloader == paper.train_dataloader and config.test_dataloader == paper.test_dataloader


def test_anchors_of_mask_rcnn() -> None:
    """Square anchors are maskrcnn-benchmark's: 32 to 512 pixels, both ends counted, around the first pixel."""
    anchors = _model(MASK_RCNN[0]).rpn_head.prior_generator.base_anchors
    squares = [tuple(level[1].tolist()) for level in anchors]
    assert squares == [
        (-14, -14, 17, 17),
        (-28, -28, 35, 35),
        (-56, -56, 71, 71),
        (-112, -112, 143, 143),
        (*(-224, -224, 287, 287),),
    ]


# RetinaMask


def test_retinamask() -> None:
    """It has Eq. 1, no spatial attention and no mask scoring; input and backbone are the paper recipe's."""
    config, model = _config(RETINAMASK), _model(RETINAMASK)
    assert isinstance(model, CenterMask) and isinstance(model.bbox_head, RetinaMaskBoxHead)
    assert isinstance(model.bbox_head.loss_bbox, SelfAdjustingSmoothL1Loss)
    assert model.neck.fpn_convs[3].conv.in_channels == 256 and model.neck.relu_before_extra_convs  # P6 from P5
    roi_head = model.roi_head
    assert roi_head.mask_roi_extractor.assignment == 'fpn'
    assert isinstance(roi_head.mask_head.spatial_attention, nn.Identity)
    assert roi_head.mask_iou_head is None
    paper = _config('centermask_r101_fpn_2x_coco')
    assert config.model.data_preprocessor == paper.model.data_preprocessor
    assert config.model.backbone == paper.model.backbone
    assert config.test_dataloader == paper.test_dataloader


def test_warm_up_of_retinamask() -> None:
    schedule = Schedule(_config(RETINAMASK), nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)))
    for iteration, factor in ((0, 1 / 3), (250, 2 / 3), (499, 1 - 2 / 3 / 500), (500, 1)):
        schedule.go_to(iteration)
        assert schedule.settings()['0.weight'][0] == pytest.approx(0.01 * factor, rel=1e-6)


def test_anchors_of_retinamask() -> None:
    """Three scales by three ratios on P3 to P7, 32 to 512 pixels for the square one of the first scale."""
    generator = _model(RETINAMASK).bbox_head.prior_generator
    assert generator.num_base_priors == [9] * 5 and [s[0] for s in generator.strides] == [8, 16, 32, 64, 128]
    for level, size in zip(generator.base_anchors, [32, 64, 128, 256, 512], strict=True):
        lengths = (level[:, 2:] - level[:, :2] + 1).double()
        areas = sorted(lengths.prod(1).sqrt().tolist())
        expected = sorted(size * 2 ** (i / 3) for i in range(3) for _ in range(3))
        assert areas == pytest.approx(expected, rel=0.03)  # corners are whole pixels
        ratios = sorted((lengths[:, 1] / lengths[:, 0]).tolist())
        assert ratios == pytest.approx([0.5] * 3 + [1.0] * 3 + [2.0] * 3, rel=0.06)


def _head() -> RetinaMaskBoxHead:
    config = _config(RETINAMASK).model
    torch.manual_seed(0)
    head = MODELS.build(
        dict(config.bbox_head, in_channels=8, feat_channels=8, num_classes=3, train_cfg=config.train_cfg)
    )
    head.init_weights()
    return head.train()


def _features(size: int, images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(images, 8, *[-(-size // s)] * 2, generator=generator) for s in (8, 16, 32, 64, 128)]


def _sample(objects: list[Object]) -> DetDataSample:
    return sample(128, 128, objects, pad_shape=(128, 128))


def test_losses_of_retinamask() -> None:
    """The class loss is MMDetection's over positives + images; the box loss sees all positives once an iteration."""
    head, x = _head(), _features(128)
    samples = [_sample(OBJECTS), _sample([square(1, 40, 40, 45, 45)])]
    maps = head(x)
    truth, metas = [s.gt_instances for s in samples], [s.metainfo for s in samples]
    seen = []
    head.loss_bbox.register_forward_hook(
        lambda module, args, kwargs, out: seen.append((args, kwargs)), with_kwargs=True
    )
    losses = head.loss_by_feat(*maps, truth, metas)

    (((predicted, targets), kwargs),) = seen
    positives = len(predicted)
    assert len(targets) == positives and kwargs == dict(avg_factor=4 * positives)
    anchors, valid = head.get_anchors([level.shape[-2:] for level in maps[0]], metas, device='cpu')
    *_, count = head.get_targets(anchors, valid, truth, metas)
    assert positives == count > 2
    error = (predicted - targets).abs().detach()
    torch.testing.assert_close(head.loss_bbox.running_mean, 0.9 * torch.full((4,), 0.11) + 0.1 * error.mean(0))
    torch.testing.assert_close(head.loss_bbox.running_var, 0.1 * error.var(0))

    head.loss_bbox = MODELS.build(dict(type='L1Loss'))
    plain = AnchorHead.loss_by_feat(head, *maps, truth, metas)
    torch.testing.assert_close(losses['loss_cls'] * (count + 2), sum(plain['loss_cls']) * count)
    torch.testing.assert_close((predicted - targets).abs().sum(), sum(plain['loss_bbox']) * count)


def test_best_anchor_of_a_small_object_is_positive() -> None:
    """An object of 5 pixels, which no anchor overlaps by half, has a positive anchor."""
    head = _head()
    head.loss_bbox.forward = lambda predicted, targets, avg_factor: torch.tensor(float(len(targets)))
    small = _sample([square(1, 40, 40, 45, 45)])
    assert head.loss_by_feat(*head(_features(128, 1)), [small.gt_instances], [small.metainfo])['loss_bbox'] >= 1


def test_retinamask_without_objects() -> None:
    head = _head()
    empty = [_sample([]) for _ in range(2)]
    losses = head.loss_by_feat(*head(_features(128)), [s.gt_instances for s in empty], [s.metainfo for s in empty])
    assert losses['loss_cls'] > 0 and losses['loss_bbox'] == 0
    sum(losses.values()).backward()
    assert without_gradient(head) == []


def test_mixed_precision_of_retinamask() -> None:
    """Anchors stay in single precision: in bfloat16 they would be off by pixels."""
    model = _small(RETINAMASK).train()
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(*_batch(model, RETINAMASK, OBJECTS))
        (result,) = model.eval().predict(*_batch(model, RETINAMASK, []))
    assert all(loss.isfinite() for loss in losses.values())
    assert result.pred_instances.bboxes.dtype == torch.float32
    sum(losses.values()).backward()
    assert without_gradient(model) == []


def test_retinamask_limits_detections_by_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training keeps 7 here (100 by default), testing 5 (50 by default)."""
    model = _small(RETINAMASK).train()
    model.train_cfg['max_per_img'] = 7
    seen, loss = [], model.roi_head.loss
    monkeypatch.setattr(
        model.roi_head, 'loss', lambda x, found, samples: (seen.extend(found), loss(x, found, samples))[1]
    )
    model.loss(*_batch(model, RETINAMASK, OBJECTS))
    assert len(seen[0]) == 7 and not seen[0].bboxes.requires_grad
    (result,) = model.eval().predict(*_batch(model, RETINAMASK, []))
    assert len(result.pred_instances) == 5


# ShapeMask


def test_warm_up_of_shapemask() -> None:
    schedule = Schedule(_config(SHAPEMASK), nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)))
    for iteration, rate in ((0, 0.0067), (250, (0.0067 + 0.08) / 2), (500, 0.08)):
        schedule.go_to(iteration)
        assert schedule.settings()['0.weight'][0] == pytest.approx(rate, rel=1e-6)


# YOLACT


@pytest.mark.parametrize('name', YOLACT)
def test_anchors_of_yolact(name: str) -> None:
    """Anchors have int(s · S / 550) pixels and ratios 1, 1/2, 2 on the levels of an image of S pixels."""
    size, model = int(name[7:10]), _model(name)
    lengths = [int(s * size / 550) for s in (24, 48, 96, 192, 384)]
    generator = model.bbox_head.prior_generator
    for level, length in zip(generator.base_anchors, lengths, strict=True):
        sides = (level[:, 2:] - level[:, :2]).double()
        assert sides.prod(1).sqrt().tolist() == pytest.approx([length] * 3, rel=1e-5)
        assert sorted((sides[:, 1] / sides[:, 0]).tolist()) == pytest.approx([0.5, 1.0, 2.0], rel=1e-4)
    features = model.extract_feat(torch.empty(1, 3, size, size, device='meta'))
    for feature, (stride, _), (x, y) in zip(features, generator.strides, generator.centers, strict=True):
        assert feature.shape[-2:] == (round(size / stride),) * 2
        assert x == y == pytest.approx(stride / 2)


def test_warm_up_of_yolact() -> None:
    schedule = Schedule(_config(YOLACT[0]), nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)))
    for iteration, rate in ((0, 1e-4), (250, 5.5e-4), (499, 9.982e-4), (500, 1e-3)):
        schedule.go_to(iteration)
        assert schedule.settings()['0.weight'][0] == pytest.approx(rate, rel=1e-6)
