"""Panoptic-CenterMask: its instance branch is CenterMask, and results don't depend on how it is run."""

import pytest
import torch
from helpers.small_model import batch, noise_image, sample, small_model, square, unlike_identity, without_gradient
from mmdet.structures import DetDataSample
from mmengine.structures import PixelData
from torch import Tensor

from centermask import CenterMask, PanopticCenterMask
from centermask.structures.rle_masks import RLEMasks

THINGS, STUFF = 3, 2  # of the small model
VOID = THINGS + STUFF
OBJECTS = [square(0, 4, 6, 40, 50), square(2, 30, 20, 70, 44)]
LOSSES = ['loss_cls', 'loss_bbox', 'loss_centerness', 'loss_mask', 'loss_mask_iou', 'loss_seg']


def _losses(model: PanopticCenterMask, *objects: list) -> dict[str, Tensor]:
    """Return the losses of one image of noise, each of its own size, for each list of objects."""
    images, samples = [], []
    for i, shapes in enumerate(objects):
        height, width = 64 - 4 * i, 80 + 16 * i
        images.append(noise_image(height, width, seed=i))
        truth = sample(height, width, shapes)
        classes = torch.ones(1, height, width, dtype=torch.uint8)
        classes[:, height // 2 :] = 2
        classes[:, :5] = 255
        truth.gt_sem_seg = PixelData(sem_seg=classes)
        samples.append(truth)
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    return model.loss(data['inputs'], data['data_samples'])


SIZES = [(64, 80), (60, 96)]


def _batch(model: CenterMask, sizes: list[tuple[int, int]] = SIZES) -> tuple[Tensor, list[DetDataSample]]:
    """Return images of noise and their samples, the first one of half its original size."""
    metas = [dict(ori_shape=(2 * sizes[0][0], 2 * sizes[0][1]), scale_factor=(0.5, 0.5)), {}]
    samples = [sample(*size, **meta) for size, meta in zip(sizes, metas, strict=False)]
    return batch(model, [noise_image(*size, seed=i) for i, size in enumerate(sizes)], samples)


@torch.no_grad()
def _predict(model: PanopticCenterMask, mode: str = 'predict') -> list[DetDataSample]:
    inputs, samples = _batch(model)
    return model(inputs, samples, mode='predict') if mode == 'fused' else model.predict(inputs, samples)


def _assert_same(results: list[DetDataSample], others: list[DetDataSample], part: float = 0) -> None:
    """Compare results; in both maps, a part of the pixels may differ."""
    for result, other in zip(results, others, strict=True):
        assert torch.equal(result.pred_instances.labels, other.pred_instances.labels)
        assert torch.equal(result.pred_instances.segment_ids, other.pred_instances.segment_ids)
        assert result.pred_instances.segment_ids.max() > 1
        for name in ('pred_sem_seg', 'pred_panoptic_seg'):
            found, expected = result.get(name).sem_seg, other.get(name).sem_seg
            assert found.shape == expected.shape
            assert (found != expected).float().mean() <= part, name


def test_losses() -> None:
    """Of a batch of two sizes; the semantic maps are padded by 255."""
    model = small_model('panoptic').train()
    losses = _losses(model, OBJECTS, [])
    assert list(losses) == LOSSES
    assert all(loss.shape == () and loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert without_gradient(model) == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_padding_is_ignored() -> None:
    """Images of a batch are padded to one size; padding of a class would change the semantic loss."""
    model = small_model('panoptic').train()
    loss = _losses(model, OBJECTS, [])['loss_seg']
    model.data_preprocessor.seg_pad_value = 0
    assert not torch.isclose(_losses(model, OBJECTS, [])['loss_seg'], loss, rtol=1e-3)


def test_instance_branch_is_centermask() -> None:
    """With the same weights, the same detections, masks and losses come from P3 to P7."""
    panoptic, plain = small_model('panoptic'), small_model('star')
    weights = dict(plain.state_dict())
    for name, tensor in panoptic.state_dict().items():
        if name.startswith('neck.'):  # whose first level is P2
            _, convs, level, *rest = name.split('.')
            name = '.'.join(['neck', convs, str(int(level) - 1), *rest])
        if name in weights:
            weights[name] = tensor
    plain.load_state_dict(weights)
    with torch.no_grad():
        expected, found = (model.predict(*_batch(model)) for model in (plain, panoptic))
        for one, other in zip(found, expected, strict=True):
            one, other = one.pred_instances, other.pred_instances
            assert len(one) == len(other) > 0
            for name in ('bboxes', 'scores', 'labels', 'masks', 'mask_scores'):
                torch.testing.assert_close(one[name], other[name])
    losses = _losses(panoptic.train(), OBJECTS)
    expected = plain.train().loss(*batch(plain, [noise_image(64, 80)], [sample(64, 80, OBJECTS)]))
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)


def test_results() -> None:
    model = small_model('panoptic')
    results = _predict(model)
    for result, size in zip(results, [(128, 160), (60, 96)], strict=True):
        semantic, panoptic = result.pred_sem_seg.sem_seg, result.pred_panoptic_seg.sem_seg
        assert semantic.shape == panoptic.shape == (1, *size)
        assert semantic.max() <= STUFF
        ids = result.pred_instances.segment_ids
        assert set((panoptic // 1000).unique().tolist()) - {0} == set(ids.tolist()) - {0}
        for index in ids.nonzero()[:, 0]:  # an instance's segment has its label and lies in its mask
            label = result.pred_instances.labels[index]
            segment = panoptic[0] == label + 1000 * ids[index]
            assert segment.any() and not (segment & ~result.pred_instances.masks[index]).any()
        stuff = panoptic[panoptic < 1000]
        assert set(stuff.unique().tolist()) <= {*range(THINGS, VOID + 1)}
        assert (semantic[panoptic == THINGS] == 1).all() and (semantic[panoptic == THINGS + 1] == 2).all()
    with torch.no_grad():
        unscaled = model.predict(*_batch(model), rescale=False)
    assert [tuple(one.pred_panoptic_seg.sem_seg.shape) for one in unscaled] == [(1, 64, 80), (1, 60, 96)]


@torch.no_grad()
def test_batch_equals_each_alone() -> None:
    model = small_model('panoptic')
    together = _predict(model)
    inputs, samples = _batch(model)
    alone = [model.predict(inputs[i : i + 1], samples[i : i + 1])[0] for i in range(2)]
    _assert_same(together, alone)


@pytest.mark.parametrize('changes', [{}, {'channels_last': True}], ids=['contiguous', 'channels last'])
def test_fused_copy(changes: dict) -> None:
    """It predicts what the plain network does."""
    model = unlike_identity(small_model('panoptic', changes))
    with torch.no_grad():
        assert model.fused() is not model
    _assert_same(_predict(model, 'fused'), _predict(model), part=1e-3)


def test_fused_copy_in_half_precision() -> None:
    model = small_model('panoptic', {'half_precision': True})
    for result, size in zip(_predict(model, 'fused'), [(128, 160), (60, 96)], strict=True):
        assert result.pred_panoptic_seg.sem_seg.shape == (1, *size)
        assert result.pred_instances.scores.dtype == torch.float32 and len(result.pred_instances) > 0


def test_thresholds_that_are_set_later_reach_the_fused_copy() -> None:
    model = small_model('panoptic')
    assert _predict(model, 'fused')[0].pred_instances.segment_ids.any()
    model.panoptic_fusion.score_thr = 2
    assert not _predict(model, 'fused')[0].pred_instances.segment_ids.any()


def test_run_length_encoded_masks() -> None:
    model = small_model('panoptic')
    expected = _predict(model)
    model.roi_head.test_cfg['mask_format'] = 'rle'
    found = _predict(model)
    assert isinstance(found[0].pred_instances.masks, RLEMasks)
    _assert_same(found, expected)


@pytest.mark.parametrize('masks', ['tensor', 'rle'])
def test_no_detections(masks: str) -> None:
    model = small_model('panoptic', {'test_cfg.score_thr': 1.0, 'test_cfg.mask_format': masks})
    for result in _predict(model):
        assert len(result.pred_instances) == len(result.pred_instances.segment_ids) == 0
        assert (result.pred_panoptic_seg.sem_seg >= THINGS).all()


def test_channels_last_in_training() -> None:
    plain, other = small_model('panoptic'), small_model('panoptic', {'channels_last': True})
    conv = other.semantic_head.conv_upsample_layers[3].conv[0].conv
    assert conv.weight.is_contiguous(memory_format=torch.channels_last) and not conv.weight.is_contiguous()
    expected, losses = _losses(plain.train(), OBJECTS), _losses(other.train(), OBJECTS)
    for name in LOSSES:
        assert losses[name].item() == pytest.approx(expected[name].item(), rel=1e-3)


def test_mixed_precision() -> None:
    model = small_model('panoptic').train()
    with torch.autocast('cpu', torch.bfloat16):
        losses = _losses(model, OBJECTS)
        results = _predict(model.eval())
    assert losses['loss_seg'].dtype == torch.float32
    sum(losses.values()).backward()
    assert without_gradient(model) == []
    assert results[0].pred_panoptic_seg.sem_seg.shape == (1, 128, 160)


def test_tensor_mode() -> None:
    """The semantic logits come after what CenterMask returns."""
    model = small_model('panoptic')
    with torch.no_grad():
        *of_centermask, semantic = model(*_batch(model), mode='tensor')
    assert len(of_centermask) == 5 and len(of_centermask[0]) == 5
    assert semantic.shape == (2, 1 + STUFF, 16, 24)


def test_numbers_of_classes_are_set_once() -> None:
    """``num_classes`` counts things for every part; the semantic head's stuff is the fusion's."""
    model = small_model('panoptic', {'num_classes': 7, 'semantic_head.num_stuff_classes': 4})
    assert model.bbox_head.num_classes == model.panoptic_fusion.num_things_classes == 7
    assert model.semantic_head.conv_logits.out_channels == 5
    assert model.panoptic_fusion.num_classes == 11


@pytest.mark.parametrize('changes', [{'pad_size_divisor': 16}, {'pad_seg': False}])
def test_inputs_that_are_not_padded_are_refused(changes: dict) -> None:
    """The levels would not fit each other, nor the semantic maps of a batch."""
    with pytest.raises(ValueError, match='not padded to multiples of 32'):
        small_model('panoptic', {f'data_preprocessor.{name}': value for name, value in changes.items()})
