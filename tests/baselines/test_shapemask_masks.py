"""ShapeMask's mask branch: the release's numbers, facts made by hand, and training on unusual data."""

from pathlib import Path

import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from helpers.read_configs import read_config
from helpers.small_model import noise_image, sample, square, without_gradient
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from parity import compare_with_reference, read_arrays
from torch import Tensor

from centermask import ShapeMask
from centermask.baselines.shapemask_crop import ShapeMaskCrop
from centermask.baselines.shapemask_mask_heads import FineMaskHead, instance_embedding
from centermask.baselines.shapemask_mask_losses import mask_loss, prior_loss
from centermask.baselines.shapemask_outer_boxes import jitter_boxes, outer_boxes, resample_in_outer_boxes
from centermask.baselines.shapemask_prior_head import ShapePriorHead
from centermask.baselines.shapemask_targets import sample_in_box, targets_of_image
from centermask.structures.rle_masks import RLEMasks
from centermask.utils.errors import InputError

CONFIG = 'shapemask_r101_fpn_2x_coco'


# The release's numbers


@pytest.mark.parametrize('part', ['heads', 'boxes', 'losses', pytest.param('model', marks=pytest.mark.slow)])
def test_numbers_of_the_release(shared: Path, part: str) -> None:
    expected = read_arrays(shared / f'parity/baselines/shapemask_{part}.npz', 'numbers')
    if part == 'heads':  # the large cases are in the command's run
        expected = {
            name: a for name, a in expected.items() if not name.startswith(('specific91', 'agnostic', 'priors'))
        }
    if part == 'boxes':  # test_shapemask_boxes.py has the others
        expected = {name: a for name, a in expected.items() if name.startswith(('outer', 'jitter', 'targets', 'paste'))}
    rows = compare_with_reference(read_config(CONFIG), expected, shared / 'parity/inputs.npz')
    assert len(rows) > 20 and not [str(row) for row in rows if not row.ok]


# Boxes


def test_outer_boxes_end_at_the_last_pixel() -> None:
    """A box of 80×40 becomes 100×50; what reaches over the border is cut at 0 and at the last pixel."""
    boxes = torch.tensor([[10.0, 20.0, 90.0, 60.0], [0.0, 0.0, 99.0, 79.0]])
    assert outer_boxes(boxes, (80, 100)).tolist() == [[0, 15, 99, 65], [0, 0, 99, 79]]


def test_jitter() -> None:
    """The centre moves by parts of the sides, which grow by the exponential."""
    box, noise = torch.tensor([[10.0, 20.0, 50.0, 40.0]]), torch.tensor([[0.5, -0.5, 0.0, 2.0]]) * 0.1
    (jittered,) = jitter_boxes(box, noise)
    height = 20 * np.exp(0.2)
    assert jittered.tolist() == pytest.approx([12, 29 - height / 2, 52, 29 + height / 2])


# Crops


@pytest.mark.parametrize(
    'size, level', [(0, 0), (100, 0), (111.9, 0), (112, 0), (223.9, 0), (224, 1), (448, 2), (2000, 4)]
)
def test_level_of_a_crop(size: float, level: int) -> None:
    """⌊4 + log2(size / 224)⌋ from 3, which is index 0."""
    rois = torch.tensor([[0, 3.0, 5.0, 3.0 + size, 5.0 + size]])
    assert ShapeMaskCrop().map_roi_levels(rois).item() == level


def test_crop_reads_cell_i_at_the_coordinate_i() -> None:
    """On a ramp a crop of 4×4 cells reads (i + ½) · size / 4 strides from the box's corner."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16).contiguous()
    crop = ShapeMaskCrop(4, 1, (8,))([ramp], torch.tensor([[0, 16.0, 8.0, 80.0, 40.0]]))
    torch.testing.assert_close(crop[0, 0], torch.tensor([3.0, 5.0, 7.0, 9.0]).expand(4, 4))


# Shape priors


def test_resampling() -> None:
    """The same box gives the same mask, one twice as wide and high half of it, and an empty one its first pixel."""
    mask = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1)
    boxes = torch.tensor([[10.0, 10.0, 42.0, 42.0]] * 2 + [[0.0] * 4])
    outer = torch.tensor([[10.0, 10.0, 42.0, 42.0], [-22.0, 10.0, 42.0, 42.0], [0.0] * 4])
    same, half, empty = resample_in_outer_boxes(mask, boxes, outer)
    torch.testing.assert_close(same, mask[0])
    torch.testing.assert_close(half[:, 4:], mask[0, :, ::2])
    assert not half[:, :4].any()
    assert (empty == mask[0, 0, 0]).all()


def test_prior_is_a_mixture_of_the_shapes_of_the_class() -> None:
    """Class-agnostic weights still mix the shapes of the object's class."""
    head = ShapePriorHead(2, 3, None, True, channels=4, size=8)
    head.priors.copy_(torch.rand(head.priors.shape, generator=torch.Generator().manual_seed(0)))
    box, features = torch.tensor([[0.0, 0.0, 8.0, 8.0]] * 2), torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1)
    prior = head(features, box, box, torch.tensor([1, 2]))
    torch.testing.assert_close(prior.weights.sum(1), torch.ones(2))
    assert torch.equal(prior.weights[0], prior.weights[1])
    for weights, mask, shapes in zip(prior.weights, prior.masks, head.priors[1:], strict=True):
        torch.testing.assert_close(mask, (weights[:, None, None] * shapes).sum(0))


# Fine masks


def test_embedding_is_the_mean_of_the_coarse_mask() -> None:
    features = torch.arange(8.0).reshape(2, 1, 2, 2)
    coarse = torch.tensor([[[1.0, -1.0], [1.0, -1.0]], [[-1.0] * 2] * 2])
    assert instance_embedding(features, coarse).flatten().tolist() == [1, 0]


def test_fine_mask_is_that_of_the_deconv_and_the_conv() -> None:
    """Their product is what they compute one after the other."""
    torch.manual_seed(0)
    head, x, channel = FineMaskHead(3, 8, 1, dict(type='BN')), torch.randn(4, 8, 5, 6), torch.tensor([0, 2, 1, 2])
    expected = head.logits(head.upsample(x))[torch.arange(4), channel]
    torch.testing.assert_close(head.upsampled_logits(x, channel), expected)


# Losses


def test_losses_divide_by_all_targets() -> None:
    """An object that isn't valid adds nothing above and its pixels below."""
    targets = torch.zeros(2, 2, 2)
    targets[0, 0], targets[1] = 1, 1
    valid = torch.tensor([True, False])
    assert prior_loss(torch.zeros(2, 2, 2), targets, valid).item() == pytest.approx(0.5 * 2 / 6)
    assert mask_loss(torch.zeros(2, 2, 2), targets, valid).item() == pytest.approx(4 * np.log(2) / 6)


def test_losses_without_targets_are_0() -> None:
    masks = torch.randn(2, 2, 2, requires_grad=True)
    loss = prior_loss(masks, torch.zeros(2, 2, 2), torch.zeros(2)) + mask_loss(
        masks, torch.zeros(2, 2, 2), torch.zeros(2)
    )
    loss.backward()
    assert loss == 0 and not masks.grad.any()


# Targets


def _objects(count: int) -> InstanceData:
    return sample(64, 96, [square(i, 8 * i, 10, 8 * i + 30, 50) for i in range(count)]).gt_instances


@pytest.mark.parametrize('count', [0, 2])
def test_padding_counts_unless_the_image_is_empty(count: int) -> None:
    targets = targets_of_image(_objects(count), torch.zeros(4, 4), (128, 128))
    assert targets.valid.tolist() == [count > 0] * 4
    assert targets.classes.tolist() == [1, 2, 0, 0][:count] + [0] * (4 - count)
    assert not targets.boxes[count:].any() and not targets.fine[count:].any()


def test_classes_whose_masks_are_learned() -> None:
    targets = targets_of_image(_objects(2), torch.zeros(3, 4), (128, 128), learned=[1])
    assert targets.valid.tolist() == [False, True, False]


def test_polygons_and_bitmaps_have_the_same_targets() -> None:
    """Polygons are rasterised in the part of the image that the box needs."""
    polygons = [np.array([20.0, 5, 90, 30, 40, 60])]
    bitmap = sample(64, 96, [(0, polygons)]).gt_instances.masks.to_ndarray()[0]
    box = np.array([13.3, 2.1, 95.0, 63.0], np.float32)
    of_polygon, of_bitmap = (sample_in_box(mask, box, (64, 96), (32, 128)) for mask in (polygons, bitmap))
    for one, other in zip(of_polygon, of_bitmap, strict=True):
        assert (one == other).all() and 0.2 < one.mean() < 0.8


def test_targets_beyond_the_image_are_empty() -> None:
    """Padding to the right is no part of a mask that fills the image."""
    (inside,) = sample_in_box(np.ones((10, 10), np.uint8), np.array([0.0, 0, 19, 9]), (10, 10), (20,))
    assert inside[:, :10].all() and not inside[:, 11:].any()


# Detector


def _small(**changes: object) -> ShapeMask:
    config = read_config(CONFIG).model
    config.backbone.update(depth=18, base_channels=8, init_cfg=None)
    config.neck.in_channels = [8, 16, 32, 64]
    config.num_classes = 3
    config.roi_head.update(channels=16, num_convs=1, num_priors=2, priors=None, **changes)
    config.bbox_head.update(stacked_convs=1)
    config.train_cfg.num_masks = 3
    config.test_cfg.update(score_thr=0.0, nms_pre=20, max_per_img=5)
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    torch.nn.init.normal_(model.roi_head.prior_head.priors)
    return model


def _batch(model: ShapeMask, samples: list[DetDataSample]) -> tuple[Tensor, list[DetDataSample]]:
    images = [noise_image(*s.img_shape, seed=i) for i, s in enumerate(samples)]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    return data['inputs'], data['data_samples']


TINY, LINE = square(1, 40, 40, 41, 41.5), (2, [[10.0, 10.0, 10.0, 60.0, 10.0, 30.0]])
ODD = {
    'no objects': [[], []],
    'one image without': [[square(0, 5, 5, 60, 70)], []],
    'tiny and without an outline': [[TINY, LINE], [square(2, 0, 0, 96, 80)]],
    'many': [[square(i % 3, 4 * i, 10, 4 * i + 30, 50) for i in range(9)]] * 2,
}


@pytest.mark.parametrize('agnostic', [False, True])
@pytest.mark.parametrize('name', ODD)
def test_trains(name: str, agnostic: bool) -> None:
    """Losses are finite and reach every parameter."""
    model = _small(class_agnostic=agnostic).train()
    losses = model.loss(*_batch(model, [sample(80, 96, objects) for objects in ODD[name]]))
    assert all(loss.isfinite() for loss in losses.values())
    assert bool(losses['loss_fine'] > 0) == (name != 'no objects')
    sum(losses.values()).backward()
    assert without_gradient(model) == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_one_place_is_refused() -> None:
    """BN has no variance of a single value."""
    model = _small().train()
    with pytest.raises(InputError, match='batch_size to 2 or more'):
        model.loss(*_batch(model, [sample(80, 96, [square(0, 5, 5, 60, 70)])]))


def test_objects_without_an_outline_learn_no_mask() -> None:
    model = _small().train()
    targets = model.roi_head.targets(sample(80, 96, [LINE, square(1, 5, 5, 60, 70)]).gt_instances, (128, 128))
    assert targets.classes.tolist() == [2, 0, 0]


def test_detects_in_pixels_of_the_original_image() -> None:
    """Masks have the image's size and lie around their boxes; ``mask_format='rle'`` has the same ones."""
    model = _small().eval()
    torch.nn.init.constant_(model.roi_head.fine_head.logits.bias, 5)
    found, encoded = [], []
    for results, mask_format in ((found, 'tensor'), (encoded, 'rle')):
        model.roi_head.test_cfg.mask_format = mask_format
        inputs, samples = _batch(model, [sample(80, 96, ori_shape=(160, 192), scale_factor=(0.5, 0.5))] * 2)
        with torch.no_grad():
            results += [result.pred_instances for result in model.predict(inputs, samples)]
    masks = found[0].masks
    assert 0 < len(masks) <= 5 and masks.shape == (len(masks), 160, 192) and masks.dtype == torch.bool and masks.any()
    assert isinstance(encoded[0].masks, RLEMasks)
    assert [mask_utils.area(rle) for rle in encoded[0].masks.rles] == masks.sum((1, 2)).tolist()


def test_no_detections() -> None:
    model = _small().eval()
    model.bbox_head.test_cfg.score_thr = 1.0
    with torch.no_grad():
        (result,) = model.predict(*_batch(model, [sample(80, 96)]))
    assert result.pred_instances.masks.shape == (0, 80, 96)


def test_bitmaps_train() -> None:
    model = _small().train()
    truth = sample(80, 96, [square(0, 5, 5, 60, 70)])
    truth.gt_instances.masks = BitmapMasks(truth.gt_instances.masks.to_ndarray(), 80, 96)
    losses = model.loss(*_batch(model, [truth, sample(80, 96, [])]))  # BN needs two values of a channel
    assert losses['loss_coarse'] > 0


def test_mixed_precision() -> None:
    """In bfloat16 losses are near those of single precision, and reach every parameter."""
    model = _small().train()
    inputs, samples = _batch(model, [sample(80, 96, [square(0, 5, 5, 60, 70)]), sample(80, 96, [])])
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            losses.append(model.loss(inputs, samples))
    for name, loss in losses[1].items():
        assert loss.dtype == torch.float32 and loss.item() == pytest.approx(losses[0][name].item(), rel=0.02), name
    sum(losses[1].values()).backward()
    assert without_gradient(model) == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_fused_copy() -> None:
    """Predictions by fused convs are the network's; in bfloat16 masks are the same but for their borders."""
    model = _small().eval()
    for module in model.modules():  # as after a training: BN that does something
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    torch.nn.init.normal_(model.roi_head.fine_head.logits.weight, std=20)
    torch.nn.init.zeros_(model.roi_head.fine_head.logits.bias)
    torch.nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.1)
    inputs, samples = _batch(model, [sample(80, 96)])
    with torch.no_grad():
        (plain,) = (result.pred_instances for result in model.predict(inputs, samples))
        assert model.fused() is not model
        (fused,) = (result.pred_instances for result in model(inputs, samples, mode='predict'))
        model.half_precision = True
        (half,) = (result.pred_instances for result in model(inputs, samples, mode='predict'))
    torch.testing.assert_close(fused.bboxes, plain.bboxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(fused.scores, plain.scores, rtol=1e-4, atol=1e-6)
    assert (fused.masks != plain.masks).float().mean() < 1e-3 and 0 < plain.masks.float().mean() < 1
    assert half.bboxes.dtype == half.scores.dtype == torch.float32 and len(half) == len(plain)
    torch.testing.assert_close(half.scores, plain.scores, rtol=0.05, atol=0)
