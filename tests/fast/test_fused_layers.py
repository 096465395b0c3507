"""Fused networks compute what the plain networks do."""

import pytest
import torch
from helpers.small_model import unlike_identity
from mmdet.registry import MODELS
from torch import nn

from centermask.fast import reordered_conv
from centermask.fast.fused_layers import fuse_for_inference
from centermask.fast.reordered_conv import ReorderedConv

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


@pytest.fixture(params=[True, False], ids=['oneDNN', 'no oneDNN'])
def operators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether torch has oneDNN's private operators."""
    if not request.param:
        monkeypatch.setattr(reordered_conv, 'has_onednn_operators', lambda dtype: False)
    return request.param


@pytest.mark.parametrize('backbone', BACKBONES.values(), ids=BACKBONES)
def test_features_are_the_plain_networks(backbone: dict, operators: bool) -> None:
    torch.manual_seed(0)
    plain = unlike_identity(MODELS.build({'type': 'VoVNet', 'norm_cfg': dict(type='BN'), **backbone}))
    plain.eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = plain(image)
        norms = [name for name, module in plain.named_modules() if isinstance(module, nn.BatchNorm2d)]
        found = fuse_for_inference(plain)(image)
    left = [name for name, module in plain.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 10 and len(left) <= 3  # those after a deformable conv
    assert any(isinstance(module, ReorderedConv) for module in plain.modules()) == operators
    for level, of_plain in zip(found, expected, strict=True):
        torch.testing.assert_close(level, of_plain, rtol=1e-4, atol=2e-5 * of_plain.std().item())


def test_mmdetections_extractor_reads_channels_last_features() -> None:
    """RoIAlign of MMCV reads channels-last memory wrongly."""
    torch.manual_seed(0)
    head = dict(type='SingleRoIExtractor', out_channels=8, featmap_strides=[4])
    extractor = MODELS.build(dict(head, roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0)))
    feature, rois = torch.randn(1, 8, 16, 16), torch.tensor([[0.0, 3, 4, 40, 50], [0, 10, 0, 30, 60]])
    expected = extractor([feature], rois)
    found = fuse_for_inference(extractor)([feature.to(memory_format=torch.channels_last)], rois)
    assert torch.equal(found, expected)


@pytest.mark.parametrize('kernel', [1, 3])
def test_weights_are_reordered_for_the_size_of_the_first_image(kernel: int) -> None:
    """Weights in another size's order would be reordered at every call, which takes longer than the conv."""
    conv = nn.Conv2d(64, 192, kernel, padding=kernel // 2)
    fused = ReorderedConv(conv)
    with torch.no_grad():
        for size, reordered in (((38, 50), True), ((25, 34), False), ((38, 50), True)):
            x = torch.randn(1, 64, *size)
            torch.testing.assert_close(fused(x), conv(x), rtol=1e-4, atol=1e-4)
            assert fused._weight_for(x).is_mkldnn == reordered


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])  # the fast types of CPUs and GPUs
@pytest.mark.parametrize('backbone', ['VoVNet', 'VoVNet, deformable', 'MobileNetV2'])
def test_features_in_half_precision(backbone: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = unlike_identity(MODELS.build({'type': 'VoVNet', 'norm_cfg': dict(type='BN'), **BACKBONES[backbone]}))
    plain.eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = plain(image)
        found = fuse_for_inference(plain, dtype)(image)
    for level, of_plain in zip(found, expected, strict=True):
        assert level.dtype == dtype
        assert (level - of_plain).abs().mean() < 0.03 * of_plain.std()
