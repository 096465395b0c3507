"""Testing runs on a folded twin: it computes the same, follows the weights, and leaves no trace in the detector."""

import copy
import ctypes
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from small_model import batch, picture, sample, small_model, square
from torch import nn

from centermask import CenterMask
from centermask.inference import prepare

BACKBONES = {
    'VoVNet': dict(arch='19-slim'),
    'VoVNet V1 with SE': dict(arch='19-slim', attention='se', residual=False),
    'VoVNet depthwise': dict(arch='19-slim-dw'),
    'VoVNet, deformable': dict(arch='19-slim', dcn_stages=(False, False, False, True)),
    'ResNet-18': dict(type='ResNet', depth=18, out_indices=(1, 2, 3)),
    'ResNet-50': dict(type='ResNet', depth=50, base_channels=16, out_indices=(1, 2, 3), style='caffe'),
    'ResNet-50, deformable': dict(
        type='ResNet',
        depth=50,
        base_channels=16,
        out_indices=(1, 2, 3),
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, False, True),
    ),
    'ResNeXt-50': dict(type='ResNeXt', depth=50, groups=8, base_width=4, base_channels=16, out_indices=(1, 2, 3)),
    'MobileNetV2': dict(type='MobileNetV2Features', widen_factor=0.5),
    'HRNet': dict(
        type='HRNet',
        extra=dict(
            stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,), num_channels=(16,)),
            stage2=dict(num_modules=1, num_branches=2, block='BASIC', num_blocks=(1, 1), num_channels=(8, 16)),
            stage3=dict(num_modules=1, num_branches=3, block='BASIC', num_blocks=(1, 1, 1), num_channels=(8, 16, 32)),
            stage4=dict(
                num_modules=1,
                num_branches=4,
                block='BASIC',
                num_blocks=(1, 1, 1, 1),
                num_channels=(8, 16, 32, 64),
                multiscale_output=True,
            ),
        ),
    ),
}


# Alone in a process: how many pages an image, or tensors of 160 MB, made the system clear; and the most memory, in KiB.
ALONE = """
import contextlib, resource, sys
import torch
from mmengine.registry import init_default_scope
from small_model import batch, picture, sample, small_model
from centermask.inference import kept_memory

torch.set_num_threads(1)
init_default_scope('mmdet')
model, size = small_model(), (544, 736)
data = batch(model, [picture(*size)], [sample(*size)])
if sys.argv[1] == 'plain malloc':
    type(model).predict = type(model).predict.__wrapped__
    kept_memory = contextlib.nullcontext

def tensors():
    with kept_memory():
        return [torch.ones(10**7) for _ in range(4)]  # given up later, as results are

def used(what):
    return getattr(resource.getrusage(resource.RUSAGE_SELF), what)

with torch.no_grad():
    for run in (lambda: model.predict(*data), tensors):
        for _ in range(3):
            run()
        pages = used('ru_minflt')
        run()
        run()
        print((used('ru_minflt') - pages) // 2)
print(used('ru_maxrss'))
"""


def _unlike_identity(module: nn.Module) -> nn.Module:
    """Give norms statistics and weights that change features."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.add_(torch.rand(tensor.shape, generator=generator) / 2)
    return module


def _found(model: CenterMask, plain: bool = False, size: tuple[int, int] = (64, 80)) -> InstanceData:
    with torch.set_grad_enabled(plain):
        return model.predict(*batch(model, [picture(*size)], [sample(*size)]))[0].pred_instances


def _assert_close(found: InstanceData, expected: InstanceData) -> None:
    assert len(found) == len(expected) > 0
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)
    for name in ('scores', 'mask_scores'):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    assert (found.masks != expected.masks).float().mean() < 1e-3


@pytest.mark.parametrize('backbone', BACKBONES.values(), ids=BACKBONES)
def test_features_are_the_plain_networks(backbone: dict) -> None:
    torch.manual_seed(0)
    plain = _unlike_identity(MODELS.build({'type': 'VoVNet', 'norm_cfg': dict(type='BN'), **backbone}))
    plain.eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = plain(image)
        norms = [name for name, module in plain.named_modules() if isinstance(module, nn.BatchNorm2d)]
        found = prepare(plain)(image)
    left = [name for name, module in plain.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 10 and len(left) <= 3  # those after a deformable conv
    for level, of_plain in zip(found, expected, strict=True):
        torch.testing.assert_close(level, of_plain, rtol=1e-4, atol=2e-5 * of_plain.std().item())


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_detections_are_the_plain_networks(recipe: str) -> None:
    model = _unlike_identity(small_model(recipe))
    with torch.no_grad():
        assert model.for_testing() is not model
    _assert_close(_found(model), _found(model, plain=True))


def test_mmdetections_models_can_be_prepared() -> None:
    """RoIAlign of MMCV reads channels-last memory wrongly."""
    torch.manual_seed(0)
    head = dict(type='SingleRoIExtractor', out_channels=8, featmap_strides=[4])
    extractor = MODELS.build(dict(head, roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0)))
    feature, rois = torch.randn(1, 8, 16, 16), torch.tensor([[0.0, 3, 4, 40, 50], [0, 10, 0, 30, 60]])
    expected = extractor([feature], rois)
    found = prepare(extractor)([feature.to(memory_format=torch.channels_last)], rois)
    assert torch.equal(found, expected)


def test_leaves_no_trace() -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = list(model.parameters())
    _found(model)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    assert [p.is_contiguous() for p in model.parameters()] == [True] * len(parameters)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.folded._twin is None
        _assert_close(_found(other), _found(model))


def test_training_after_testing() -> None:
    model, other = small_model(), small_model()
    _found(model)
    grads = []
    for m in (model, other):
        m.train()
        truth = sample(64, 80, [square(0, 4, 6, 40, 50)])
        sum(m.loss(*batch(m, [picture(64, 80)], [truth])).values()).backward()
        grads.append({name: p.grad for name, p in m.named_parameters() if p.grad is not None})
    assert list(grads[0]) == list(grads[1]) and grads[0]
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def _in_place(model: CenterMask) -> None:
    with torch.no_grad():
        model.backbone.stem[0].conv.weight.mul_(1.5)


def _by_data(model: CenterMask) -> None:
    model.bbox_head.conv_reg.bias.data.fill_(3.0)


def _average(model: CenterMask) -> None:
    """As MMEngine's EMA: in place by ``.data``, here of few values, then eval mode."""
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
def test_changes_are_seen(change: Callable[[CenterMask], None]) -> None:
    model = small_model()
    before = _found(model)
    change(model)
    found = _found(model)
    _assert_close(found, _found(model, plain=True))
    assert len(found) != len(before) or not torch.equal(found.bboxes, before.bboxes)


def test_plain_where_the_twin_would_differ() -> None:
    model = small_model()
    assert model.for_testing() is model  # gradients are wanted
    with torch.no_grad():
        assert model.for_testing() is model.for_testing() is not model
        model.backbone.stem[0].train()
        assert model.for_testing() is model
        model.eval()
        model.backbone.stem[0].bn.forward = lambda x: x
        assert model.for_testing() is model
        assert small_model(changes={'fold': False}).for_testing().training is False


def test_inference_mode() -> None:
    model = small_model()
    with torch.inference_mode():
        _assert_close(
            model.predict(*batch(model, [picture(64, 80)], [sample(64, 80)]))[0].pred_instances, _found(model)
        )


def test_half_precision_is_close() -> None:
    """The boxes of highest score are there, moved by rounding, in the types of single precision."""
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


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])  # what CPUs and GPUs compute fast
@pytest.mark.parametrize('backbone', BACKBONES.values(), ids=BACKBONES)
def test_features_in_half_precision(backbone: dict, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = _unlike_identity(MODELS.build({'type': 'VoVNet', 'norm_cfg': dict(type='BN'), **backbone}))
    plain.eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = plain(image)
        found = prepare(plain, dtype)(image)
    for level, of_plain in zip(found, expected, strict=True):
        assert level.dtype == dtype
        assert (level - of_plain).abs().mean() < 0.03 * of_plain.std()


@pytest.mark.skipif(
    sys.platform != 'linux' or not hasattr(ctypes.CDLL(None), 'mallinfo2'), reason='malloc is not glibc 2.33 or later'
)
def test_an_image_takes_no_fresh_memory() -> None:
    """Alone in a process, from the fourth image on; and the process is hardly larger than it would be."""
    done = {
        way: subprocess.run(
            [sys.executable, '-c', ALONE, way], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True
        )
        for way in ('as shipped', 'plain malloc')
    }
    image, tensors, most = map(int, done['as shipped'].stdout.split())
    fresh_image, fresh_tensors, otherwise = map(int, done['plain malloc'].stdout.split())
    assert image < 500 and tensors < 500
    assert fresh_image > 3000 and fresh_tensors > 30_000
    assert most < otherwise + 200_000
