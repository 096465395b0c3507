"""VoVNet: blocks against plain arithmetic, variants, freezing, and the released layout."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from centermask import VoVNet
from centermask.vovnet import VARIANTS, EffectiveSE, OSAModule, SqueezeExcitation

SIZES_19_SLIM = (256, 384, 512)


def _slim(**kwargs) -> VoVNet:
    torch.manual_seed(0)
    return VoVNet('19-slim', **kwargs)


def _norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3, 0, 6) / 6


def _linear(conv: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    return x @ conv.weight.detach().numpy()[:, :, 0, 0].T + conv.bias.detach().numpy()


def _spread(module: nn.Module) -> None:
    """Draw weights that reach both flat ends of the hard sigmoid."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=4)


def test_ese() -> None:
    ese, x = EffectiveSE(16), torch.randn(2, 16, 5, 7, generator=torch.Generator().manual_seed(0)) + 0.5
    _spread(ese)
    weights = _hard_sigmoid(_linear(ese.fc, x.numpy().mean((2, 3))))
    assert {0.0, 1.0} < set(weights.ravel())
    np.testing.assert_allclose(ese(x).detach(), x.numpy() * weights[:, :, None, None], rtol=1e-4, atol=1e-5)


def test_se() -> None:
    """SE reduces by 4 and applies ReLU, then a hard sigmoid."""
    se, x = SqueezeExcitation(16), torch.randn(2, 16, 5, 7, generator=torch.Generator().manual_seed(0)) + 0.5
    _spread(se)
    assert (se.fc1.in_channels, se.fc1.out_channels, se.fc2.out_channels) == (16, 4, 16)
    hidden = np.maximum(_linear(se.fc1, x.numpy().mean((2, 3))), 0)
    weights = _hard_sigmoid(_linear(se.fc2, hidden))
    assert {0.0, 1.0} < set(weights.ravel())
    np.testing.assert_allclose(se(x).detach(), x.numpy() * weights[:, :, None, None], rtol=1e-4, atol=1e-5)


def _osa(residual: bool = False, attention: str = 'none', depthwise: bool = False, in_channels: int = 8) -> OSAModule:
    torch.manual_seed(0)
    module = OSAModule(in_channels, 4, 8, 3, residual, attention, depthwise, None, dict(type='BN'))
    for norm in _norms(module):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return module.eval()


def _conv_bn_relu(part: nn.Module, x: Tensor) -> Tensor:
    y = nn.functional.conv2d(x, part.conv.weight, padding=part.conv.kernel_size[0] // 2)
    return part.bn(y).relu()


@pytest.mark.parametrize('residual', [False, True])
def test_osa(residual: bool) -> None:
    """A chain of convs; input and outputs are concatenated; 1×1 conv; eSE; the input is added without a ReLU."""
    module, x = _osa(residual, 'ese'), torch.randn(2, 8, 6, 5)
    outputs = [x]
    for conv in module.convs:
        outputs.append(_conv_bn_relu(conv, outputs[-1]))
    expected = module.attention(_conv_bn_relu(module.aggregate, torch.cat(outputs, 1)))
    if residual:
        expected = expected + x
        assert (expected < 0).any()
    torch.testing.assert_close(module(x), expected)


def test_osa_depthwise() -> None:
    """A 1×1 conv reduces the width first; the block's own input is concatenated first."""
    module, x = _osa(depthwise=True), torch.randn(2, 8, 6, 5)
    outputs, y = [x], _conv_bn_relu(module.reduce, x)
    for conv in module.convs:
        y = nn.functional.conv2d(y, conv.depthwise_conv.conv.weight, padding=1, groups=4)
        y = _conv_bn_relu(conv.pointwise_conv, y)
        outputs.append(y)
    torch.testing.assert_close(module(x), _conv_bn_relu(module.aggregate, torch.cat(outputs, 1)))


def test_osa_depthwise_reduces_only_where_widths_differ() -> None:
    assert isinstance(_osa(depthwise=True, in_channels=4).reduce, nn.Identity)
    assert isinstance(_osa(in_channels=8).reduce, nn.Identity)


@pytest.mark.parametrize('arch', VARIANTS)
def test_variants(arch: str) -> None:
    """Widths and strides of every variant."""
    with torch.device('meta'):
        features = VoVNet(arch, out_indices=(0, 1, 2, 3))(torch.zeros(2, 3, 64, 96))
    widths = (112, 256, 384, 512) if 'slim' in arch else (256, 512, 768, 1024)
    expected = [(2, width, 64 // stride, 96 // stride) for width, stride in zip(widths, (4, 8, 16, 32), strict=True)]
    assert [tuple(feature.shape) for feature in features] == expected


@pytest.mark.parametrize(
    'arch, blocks, convs',
    [('19', [1, 1, 1, 1], 3), ('39', [1, 1, 2, 2], 5), ('57', [1, 1, 4, 3], 5), ('99', [1, 3, 9, 3], 5)],
)
def test_blocks(arch: str, blocks: list[int], convs: int) -> None:
    """Only the first block of a stage has no residual connection; eSE is in every block."""
    with torch.device('meta'):
        model = VoVNet(arch)
    assert [len(stage.blocks) for stage in model.stages] == blocks
    for stage in model.stages:
        assert [block.residual for block in stage.blocks] == [False] + [True] * (len(stage.blocks) - 1)
        assert all(isinstance(block.attention, EffectiveSE) for block in stage.blocks)
        assert all(len(block.convs) == convs for block in stage.blocks)


def test_v1() -> None:
    with torch.device('meta'):
        model = VoVNet('39', attention='none', residual=False)
    blocks = [block for stage in model.stages for block in stage.blocks]
    assert not any(block.residual for block in blocks)
    assert all(isinstance(block.attention, nn.Identity) for block in blocks)
    assert not any(conv.bias is not None for conv in model.modules() if isinstance(conv, nn.Conv2d))


def test_se_in_every_block() -> None:
    with torch.device('meta'):
        v2, se = VoVNet('39'), VoVNet('39', attention='se')
    # eSE: C² + C; SE: two layers of C²/4 with biases of C/4 and C. Blocks of 256, 512, 2 × 768 and 2 × 1024 channels.
    widths = (256, 512, 768, 768, 1024, 1024)
    difference = sum(c * c + c - (c * c // 2 + c // 4 + c) for c in widths)
    assert _count(v2) - _count(se) == difference
    assert all(isinstance(block.attention, SqueezeExcitation) for stage in se.stages for block in stage.blocks)


@pytest.mark.parametrize('attention, kind', [('ese', EffectiveSE), ('se', SqueezeExcitation)])
def test_attention_in_the_last_block_of_a_stage(attention: str, kind: type[nn.Module]) -> None:
    """timm's weights have attention in the last block only; residual connections don't change."""
    with torch.device('meta'):
        model = VoVNet('57', attention=attention, attention_blocks='last')
    for stage in model.stages:
        *others, last = stage.blocks
        assert isinstance(last.attention, kind)
        assert all(isinstance(block.attention, nn.Identity) for block in others)
        assert [block.residual for block in stage.blocks] == [False] + [True] * len(others)
    assert [len(stage.blocks) for stage in model.stages] == [1, 1, 4, 3]


def test_a_stage_of_one_block_has_attention_either_way() -> None:
    with torch.device('meta'):
        every, last = VoVNet('19-dw'), VoVNet('19-dw', attention_blocks='last')
    assert every.state_dict().keys() == last.state_dict().keys()


def test_no_attention_in_the_last_block_of_v1() -> None:
    with torch.device('meta'):
        model = VoVNet('39', attention='none', attention_blocks='last')
    assert all(isinstance(block.attention, nn.Identity) for stage in model.stages for block in stage.blocks)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    'size, expected',
    [
        # A pool rounds up: 26 → 13, 13 → 6, 6 → 3; 34 → 17, 17 → 8, 8 → 4.
        ((104, 136), [(26, 34), (13, 17), (6, 8), (3, 4)]),
        ((97, 130), [(25, 33), (12, 16), (6, 8), (3, 4)]),
        ((72, 40), [(18, 10), (9, 5), (4, 2), (2, 1)]),
        ((33, 31), [(9, 8), (4, 4), (2, 2), (1, 1)]),
    ],
)
def test_sizes_that_are_no_multiples_of_32(size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    with torch.no_grad():
        features = _slim(out_indices=(0, 1, 2, 3)).eval()(torch.randn(1, 3, *size))
    assert [tuple(feature.shape[2:]) for feature in features] == expected
    assert all(torch.isfinite(feature).all() for feature in features)


def test_out_indices() -> None:
    with torch.device('meta'):
        features = _slim(out_indices=(3,))(torch.zeros(1, 3, 64, 64))
    assert [tuple(feature.shape) for feature in features] == [(1, 512, 2, 2)]


def test_depthwise_stem() -> None:
    with torch.device('meta'):
        stem = VoVNet('19-dw').stem
    assert stem[0].conv.weight.shape == (64, 3, 3, 3)
    assert [stem[i].depthwise_conv.conv.weight.shape for i in (1, 2)] == [(64, 1, 3, 3)] * 2
    assert not any(stem[i].depthwise_conv.with_norm or stem[i].depthwise_conv.with_activation for i in (1, 2))


def test_deformable_stages() -> None:
    model = _slim(dcn_stages=(False, False, True, True)).eval()
    for stage, deformable in zip(model.stages, (False, False, True, True), strict=True):
        for conv in stage.blocks[0].convs:
            assert hasattr(conv.conv, 'conv_offset') == deformable
            if deformable:  # 2 × 9 offsets and 9 masks
                assert conv.conv.conv_offset.weight.shape == (27, conv.conv.in_channels, 3, 3)
                assert conv.conv.conv_offset.bias.shape == (27,)
    assert [feature.shape[1] for feature in model(torch.randn(1, 3, 64, 64))] == list(SIZES_19_SLIM)


def test_deformable_conv() -> None:
    """With offsets of 0 and masks of sigmoid(2) it is a plain conv times sigmoid(2)."""
    conv = _slim(dcn_stages=(False, True, False, False)).stages[1].blocks[0].convs[1].conv
    nn.init.zeros_(conv.conv_offset.weight)
    conv.conv_offset.bias.data = torch.tensor([0.0] * 18 + [2.0] * 9)
    x = torch.randn(1, 80, 6, 6)
    expected = nn.functional.conv2d(x, conv.weight, padding=1) / (1 + math.exp(-2))
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages(frozen_stages: int) -> None:
    model = _slim(frozen_stages=frozen_stages, norm_eval=False)
    model.train()
    parts = [model.stem, *model.stages]
    for i, part in enumerate(parts):
        frozen = i <= frozen_stages
        assert all(p.requires_grad is not frozen for p in part.parameters())
        assert all(norm.training is not frozen for norm in _norms(part))


def test_norm_eval() -> None:
    """Statistics are frozen in training, and affine parameters with ``requires_grad=False``."""
    model = _slim(norm_cfg=dict(type='BN', requires_grad=False)).train()
    before = [norm.running_mean.clone() for norm in _norms(model)]
    model(torch.randn(2, 3, 64, 64))
    assert model.training and model.stages[0].training
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(_norms(model), before, strict=True))
    assert not any(p.requires_grad for norm in _norms(model) for p in norm.parameters())
    assert model.stem[0].conv.weight.requires_grad


def test_norms_train() -> None:
    model = _slim(norm_eval=False).train()
    before = [norm.running_mean.clone() for norm in _norms(model)]
    model(torch.randn(2, 3, 64, 64))
    assert not any(torch.equal(norm.running_mean, mean) for norm, mean in zip(_norms(model), before, strict=True))


@pytest.mark.parametrize('norm_eval', [True, False])
def test_checkpointed_stages(norm_eval: bool) -> None:
    """Output and gradients are the same, and every stage runs twice."""
    results = []
    for with_cp in (False, True):
        model = _slim(with_cp=with_cp, norm_eval=norm_eval).train()
        runs: list[int] = []
        for stage in model.stages:
            stage.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        outputs = model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        sum(output.square().mean() for output in outputs).backward()
        results.append((outputs, [p.grad for p in model.parameters()], len(runs)))
    (plain, plain_grads, plain_runs), (checkpointed, grads, runs) = results
    torch.testing.assert_close(checkpointed, plain)
    torch.testing.assert_close(grads, plain_grads)
    assert (plain_runs, runs) == (4, 8)


def test_checkpointed_stages_behind_frozen_ones() -> None:
    model = _slim(with_cp=True, frozen_stages=1).train()
    sum(output.sum() for output in model(torch.randn(1, 3, 64, 64))).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}


def test_variant_as_a_number() -> None:
    assert len(VoVNet(39).stages[3].blocks) == 2


def test_epsilon_0_only_while_norms_are_frozen() -> None:
    with pytest.raises(ValueError, match=r'set norm_cfg\.eps=1e-5$'):
        VoVNet('19-slim', norm_cfg=dict(type='BN', eps=0), norm_eval=False)
    model = _slim(norm_cfg=dict(type='BN', eps=0, requires_grad=False)).train()
    assert all(torch.isfinite(output).all() for output in model(torch.randn(1, 3, 64, 64)))


NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def _conv_names(name: str, released: str) -> dict[str, str]:
    norm = {f'{name}.bn.{kind}': f'{released}/norm.{kind}' for kind in NORM}
    return {f'{name}.conv.weight': f'{released}/conv.weight', **norm}


def _depthwise_names(name: str, released: str) -> dict[str, str]:
    return {
        f'{name}.depthwise_conv.conv.weight': f'{released}/dw_conv3x3.weight',
        f'{name}.pointwise_conv.conv.weight': f'{released}/pw_conv1x1.weight',
        **{f'{name}.pointwise_conv.bn.{n}': f'{released}/pw_norm.{n}' for n in NORM},
    }


def _released_names(depthwise: bool) -> dict[str, str]:
    """Return the releases' name of every tensor of a VoVNet-19."""
    names = _conv_names('stem.0', 'stem.stem_1')
    conv_names = _depthwise_names if depthwise else _conv_names
    for i in (2, 3):
        names |= conv_names(f'stem.{i - 1}', f'stem.stem_{i}')
    for i in (2, 3, 4, 5):
        name, released, osa = f'stages.{i - 2}.blocks.0', f'stage{i}.OSA{i}_1', f'OSA{i}_1'
        for conv in range(3):
            names |= conv_names(f'{name}.convs.{conv}', f'{released}.layers.{conv}.{osa}_{conv}')
        if depthwise and i > 2:
            names |= _conv_names(f'{name}.reduce', f'{released}.conv_reduction.{osa}_reduction_0')
        names |= _conv_names(f'{name}.aggregate', f'{released}.concat.{osa}_concat')
        names |= {f'{name}.attention.fc.{n}': f'{released}.ese.fc.{n}' for n in ('weight', 'bias')}
    return names


@pytest.mark.parametrize('arch, prefix', [('19-slim', ''), ('19-slim-dw', 'module.')])
def test_loads_the_released_layout(arch: str, prefix: str, tmp_path: Path) -> None:
    """The file is a synthetic ImageNet checkpoint, with a classifier."""
    source, names = VoVNet(arch), _released_names(depthwise='dw' in arch)
    weights = {key: torch.rand_like(tensor, dtype=torch.float32) for key, tensor in source.state_dict().items()}
    assert set(names) == set(weights)
    released = {prefix + names[key]: tensor for key, tensor in weights.items() if 'num_batches' not in key}
    torch.save({**released, f'{prefix}classifier.weight': torch.zeros(1000, 512)}, tmp_path / 'released.pth')
    model = VoVNet(arch, init_cfg=dict(type='StrictPretrained', checkpoint=str(tmp_path / 'released.pth')))
    model.init_weights()
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights if 'num_batches' not in key)


def test_a_depthwise_variant_has_no_deformable_convs() -> None:
    with pytest.raises(ValueError, match='depthwise VoVNet 19-slim-dw has no deformable convs'):
        VoVNet('19-slim-dw', dcn_stages=(False, True, True, True))
