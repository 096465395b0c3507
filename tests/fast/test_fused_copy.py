"""The fused copy predicts what the detector does, follows its weights, and leaves it unchanged."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from helpers.small_model import batch, noise_image, sample, small_model, square, unlike_identity
from mmengine.structures import InstanceData
from torch import nn

from centermask import CenterMask


def _found(model: CenterMask, plain: bool = False, size: tuple[int, int] = (64, 80)) -> InstanceData:
    with torch.set_grad_enabled(plain):
        return model(*batch(model, [noise_image(*size)], [sample(*size)]), mode='predict')[0].pred_instances


def _assert_close(found: InstanceData, expected: InstanceData) -> None:
    assert len(found) == len(expected) > 0
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)
    for name in ('scores', 'mask_scores'):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    assert (found.masks != expected.masks).float().mean() < 1e-3


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_same_detections_as_the_plain_network(recipe: str) -> None:
    model = unlike_identity(small_model(recipe))
    with torch.no_grad():
        assert model.fused() is not model
    _assert_close(_found(model), _found(model, plain=True))


def test_leaves_the_detector_unchanged() -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = list(model.parameters())
    _found(model)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    assert [p.is_contiguous() for p in model.parameters()] == [True] * len(parameters)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.fused_copy._copy is None
        _assert_close(_found(other), _found(model))


def test_training_after_testing() -> None:
    model, other = small_model(), small_model()
    _found(model)
    grads = []
    for m in (model, other):
        m.train()
        truth = sample(64, 80, [square(0, 4, 6, 40, 50)])
        sum(m.loss(*batch(m, [noise_image(64, 80)], [truth])).values()).backward()
        grads.append({name: p.grad for name, p in m.named_parameters() if p.grad is not None})
    assert list(grads[0]) == list(grads[1]) and grads[0]
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def _in_place(model: CenterMask) -> None:
    with torch.no_grad():
        model.backbone.stem[0].conv.weight.mul_(1.5)


def _by_data(model: CenterMask) -> None:
    model.bbox_head.conv_reg.bias.data.fill_(3.0)


def _average(model: CenterMask) -> None:
    """Change few values in place by ``.data`` and set eval mode, as MMEngine's EMA does."""
    model.backbone.stem[1].conv.weight.data[5, 7] += 1
    model.eval()


def _statistics(model: CenterMask) -> None:
    model.backbone.stem[2].bn.running_mean.add_(0.3)


def _load(model: CenterMask) -> None:
    model.load_state_dict({name: tensor * 1.1 for name, tensor in model.state_dict().items()})


def _assign(model: CenterMask) -> None:
    state = {name: tensor * 1.1 for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def _replace(model: CenterMask) -> None:
    old = model.bbox_head.conv_cls
    model.bbox_head.conv_cls = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1).eval()


def _settings(model: CenterMask) -> None:
    model.bbox_head.test_cfg = {**model.bbox_head.test_cfg, 'max_per_img': 7}


@pytest.mark.parametrize('change', [_in_place, _by_data, _average, _statistics, _load, _assign, _replace, _settings])
def test_follows_changes_of_the_detector(change: Callable[[CenterMask], None]) -> None:
    model = small_model()
    before = _found(model)
    change(model)
    found = _found(model)
    _assert_close(found, _found(model, plain=True))
    assert len(found) != len(before) or not torch.equal(found.bboxes, before.bboxes)


def test_returns_the_detector_where_a_copy_would_differ() -> None:
    model = small_model()
    assert model.fused() is model  # gradients are needed
    with torch.no_grad():
        assert model.fused() is model.fused() is not model
        model.backbone.stem[0].train()
        assert model.fused() is model
        model.eval()
        model.backbone.stem[0].bn.forward = lambda x: x
        assert model.fused() is model
        assert small_model(changes={'fuse_conv_bn': False}).fused().training is False


def test_inference_mode() -> None:
    model = small_model()
    with torch.inference_mode():
        found = model(*batch(model, [noise_image(64, 80)], [sample(64, 80)]), mode='predict')[0].pred_instances
        _assert_close(found, _found(model))


def test_half_precision_is_close() -> None:
    """The boxes of highest score are found, moved by rounding, with results in single precision."""
    model, half = small_model(), small_model(changes={'half_precision': True})
    expected, found = _found(model), _found(half)
    assert found.bboxes.dtype == found.scores.dtype == found.mask_scores.dtype == torch.float32
    sure = expected[:10]
    off = (sure.bboxes[:, None] - found.bboxes[None]).abs().amax(2)
    off[sure.labels[:, None] != found.labels[None]] = torch.inf
    distance, match = off.min(1)
    assert 0 < distance.median() < 1
    assert (found.mask_scores[match] / sure.mask_scores - 1).abs().median() < 0.1
    assert next(model.parameters()).dtype == torch.float32
