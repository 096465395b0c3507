"""Names and shapes of released checkpoints, written independently of the tested tables of names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
_WIDTHS = ((128, 160, 192, 224), (256, 512, 768, 1024))
_SLIM = ((64, 80, 96, 112), (112, 256, 384, 512))
_VOVNETS = {
    '19': (*_WIDTHS, 3, (1, 1, 1, 1)),
    '19-dw': (*_WIDTHS, 3, (1, 1, 1, 1)),
    '19-slim': (*_SLIM, 3, (1, 1, 1, 1)),
    '19-slim-dw': (*_SLIM, 3, (1, 1, 1, 1)),
    '39': (*_WIDTHS, 5, (1, 1, 2, 2)),
    '57': (*_WIDTHS, 5, (1, 1, 4, 3)),
}


def with_prefix(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def _norm(name: str, channels: int, statistics: bool = True) -> Shapes:
    kinds = ['weight', 'bias', *(['running_mean', 'running_var'] if statistics else [])]
    return {f'{name}.{kind}': (channels,) for kind in kinds}


def _layer(name: str, *shape: int) -> Shapes:
    """Return the shapes of a conv or a fully connected layer with its bias."""
    return {f'{name}.weight': shape, f'{name}.bias': shape[:1]}


def vovnet(arch: str, dcn: bool = False) -> Shapes:
    """Return both releases' VoVNetV2, with deformable convs in stages 3 to 5 of the DCN variants."""
    depthwise = arch.endswith('dw')

    def conv3x3(name: str, width: int, out: int, deformable: bool = False) -> Shapes:
        if depthwise:
            return {
                f'{name}/dw_conv3x3.weight': (width, 1, 3, 3),
                f'{name}/pw_conv1x1.weight': (out, width, 1, 1),
                **_norm(f'{name}/pw_norm', out),
            }
        offsets = _layer(f'{name}/conv_offset', 27, width, 3, 3) if deformable else {}
        return {**offsets, f'{name}/conv.weight': (out, width, 3, 3), **_norm(f'{name}/norm', out)}

    channels = 64 if depthwise else 128
    shapes = {'stem.stem_1/conv.weight': (64, 3, 3, 3), **_norm('stem.stem_1/norm', 64)}
    shapes |= conv3x3('stem.stem_2', 64, 64) | conv3x3('stem.stem_3', 64, channels)
    conv_widths, out_widths, convs, blocks = _VOVNETS[arch]
    for stage, (width, out, count) in enumerate(zip(conv_widths, out_widths, blocks, strict=True), 2):
        for block in range(1, count + 1):
            osa = f'OSA{stage}_{block}'
            inside = f'stage{stage}.{osa}'
            first = channels
            if depthwise and channels != width:
                name, first = f'{inside}.conv_reduction.{osa}_reduction_0', width
                shapes |= {f'{name}/conv.weight': (width, channels, 1, 1), **_norm(f'{name}/norm', width)}
            for i in range(convs):
                name = f'{inside}.layers.{i}.{osa}_{i}'
                shapes |= conv3x3(name, first if i == 0 else width, width, dcn and stage > 2)
            name = f'{inside}.concat.{osa}_concat'
            shapes |= {f'{name}/conv.weight': (out, channels + convs * width, 1, 1), **_norm(f'{name}/norm', out)}
            shapes |= _layer(f'{inside}.ese.fc', out, out, 1, 1)
            channels = out
    return shapes


def timm_vovnet(arch: str) -> Shapes:
    """Return timm's VoVNet, with attention in the last block of a stage and a classifier."""
    depthwise = arch.endswith('dw')

    def conv3x3(name: str, width: int, out: int) -> Shapes:
        if depthwise:
            convs = {f'{name}.conv_dw.weight': (width, 1, 3, 3), f'{name}.conv_pw.weight': (out, width, 1, 1)}
        else:
            convs = {f'{name}.conv.weight': (out, width, 3, 3)}
        return {**convs, **_norm(f'{name}.bn', out), f'{name}.bn.num_batches_tracked': ()}

    channels = 64 if depthwise else 128
    shapes = {'stem.0.conv.weight': (64, 3, 3, 3), **_norm('stem.0.bn', 64), 'stem.0.bn.num_batches_tracked': ()}
    shapes |= conv3x3('stem.1', 64, 64) | conv3x3('stem.2', 64, channels)
    conv_widths, out_widths, convs, blocks = _VOVNETS[arch]
    for stage, (width, out, count) in enumerate(zip(conv_widths, out_widths, blocks, strict=True)):
        for block in range(count):
            inside, first = f'stages.{stage}.blocks.{block}', channels
            if depthwise and channels != width:
                name, first = f'{inside}.conv_reduction', width
                shapes |= {f'{name}.conv.weight': (width, channels, 1, 1), **_norm(f'{name}.bn', width)}
            for i in range(convs):
                shapes |= conv3x3(f'{inside}.conv_mid.{i}', first if i == 0 else width, width)
            name = f'{inside}.conv_concat'
            shapes |= {f'{name}.conv.weight': (out, channels + convs * width, 1, 1), **_norm(f'{name}.bn', out)}
            if block == count - 1:
                shapes |= _layer(f'{inside}.attn.fc', out, out, 1, 1)
            channels = out
    return shapes | _layer('head.fc', 1000, 1024)


def _bottlenecks(depth: int, resnext: bool) -> list[tuple[int, int, list[tuple[int, ...]], tuple[int, ...] | None]]:
    """Return stage (from 1), block, shapes of the three convs, and that of the shortcut or None."""
    found, channels = [], 64
    for stage, count in enumerate({50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth], 1):
        out = 128 * 2**stage
        width = out if resnext else out // 4
        for block in range(count):
            middle = (width, width // 32 if resnext else width, 3, 3)
            convs = [(width, channels, 1, 1), middle, (out, width, 1, 1)]
            found.append((stage, block, convs, (out, channels, 1, 1) if block == 0 else None))
            channels = out
    return found


def resnet_star(depth: int, resnext: bool = False, statistics: bool = True) -> Shapes:
    shapes = {'stem.conv1.weight': (64, 3, 7, 7), **_norm('stem.conv1.norm', 64, statistics)}
    for stage, block, convs, shortcut in _bottlenecks(depth, resnext):
        inside = f'res{stage + 1}.{block}'
        names = [f'{inside}.conv{i}' for i in (1, 2, 3)]
        for name, shape in [*zip(names, convs, strict=True), *([(f'{inside}.shortcut', shortcut)] if shortcut else [])]:
            shapes |= {f'{name}.weight': shape, **_norm(f'{name}.norm', shape[0], statistics)}
    return shapes


def resnet_paper(depth: int) -> Shapes:
    shapes = {'stem.conv1.weight': (64, 3, 7, 7), **_norm('stem.bn1', 64)}
    for stage, block, convs, shortcut in _bottlenecks(depth, False):
        inside = f'layer{stage}.{block}'
        if shortcut:
            shapes |= {f'{inside}.downsample.0.weight': shortcut, **_norm(f'{inside}.downsample.1', shortcut[0])}
        for i, shape in enumerate(convs, 1):
            shapes |= {f'{inside}.conv{i}.weight': shape, **_norm(f'{inside}.bn{i}', shape[0])}
    return shapes


def resnet_caffe2(depth: int, resnext: bool = False, statistics: bool = False) -> Shapes:
    """Return Detectron's blobs, with the classifier."""

    def norm(name: str, channels: int) -> Shapes:
        return {f'{name}_{kind}': (channels,) for kind in ['s', 'b', *(['rm', 'riv'] if statistics else [])]}

    shapes: Shapes = {'conv1_w': (64, 3, 7, 7), 'conv1_b': (64,), **norm('res_conv1_bn', 64)}
    for stage, block, convs, shortcut in _bottlenecks(depth, resnext):
        inside = f'res{stage + 1}_{block}_branch'
        for name, shape in [*zip(['2a', '2b', '2c'], convs, strict=True), *([('1', shortcut)] if shortcut else [])]:
            shapes |= {f'{inside}{name}_w': shape, **norm(f'{inside}{name}_bn', shape[0])}
    classifier = 'pred' if resnext else 'fc1000'
    return shapes | {f'{classifier}_w': (1000, 2048), f'{classifier}_b': (1000,)}


def mobilenetv2() -> Shapes:
    """Return MobileNetV2 without the last conv and the classifier."""
    shapes = {'features.0.0.weight': (32, 3, 3, 3), **_norm('features.0.1', 32)}
    channels, feature = 32, 1
    stages = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    for expansion, out, count in stages:
        for _ in range(count):
            width = channels * expansion
            convs = [(width, channels, 1, 1)] if expansion > 1 else []
            for i, shape in enumerate([*convs, (width, 1, 3, 3), (out, width, 1, 1)]):
                name = f'features.{feature}.conv'
                shapes |= {f'{name}.{3 * i}.weight': shape, **_norm(f'{name}.{3 * i + 1}', shape[0])}
            channels, feature = out, feature + 1
    return shapes


def _fcos_head(width: int, convs: int, classes: int, centerness: str) -> Shapes:
    shapes: Shapes = {}
    for tower in ('cls_tower', 'bbox_tower'):
        for i in range(convs):
            shapes |= _layer(f'{tower}.{3 * i}', width, width, 3, 3) | _norm(f'{tower}.{3 * i + 1}', width, False)
    shapes |= _layer('cls_logits', classes, width, 3, 3) | _layer('bbox_pred', 4, width, 3, 3)
    return shapes | _layer(centerness, 1, width, 3, 3) | {f'scales.{i}.scale': (1,) for i in range(5)}


def _mask_head(width: int, convs: int) -> Shapes:
    shapes: Shapes = {'spatialAtt.conv.weight': (1, 2, 3, 3)}
    for i in range(1, convs + 1):
        shapes |= _layer(f'mask_fcn{i}', width, width, 3, 3)
    return shapes


def _maskiou_head(width: int, convs: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(1, convs + 1):
        shapes |= _layer(f'maskiou_fcn{i}', width, width + (i == 1), 3, 3)
    return shapes | _layer('maskiou_fc1', 1024, width * 49) | _layer('maskiou_fc2', 1024, 1024)


def star(backbone: Shapes, channels: tuple[int, int, int], lite: bool = False, classes: int = 80) -> Shapes:
    """Return a model of CenterMask2; ``channels`` are those of the backbone's outputs."""
    width, convs = (128, 2) if lite else (256, 4)
    shapes: Shapes = {}
    for level, its_channels in enumerate(channels, 3):
        shapes |= _layer(f'backbone.fpn_lateral{level}', width, its_channels, 1, 1)
        shapes |= _layer(f'backbone.fpn_output{level}', width, width, 3, 3)
    for level in ('p6', 'p7'):
        shapes |= _layer(f'backbone.top_block.{level}', width, width, 3, 3)
    shapes |= with_prefix('backbone.bottom_up.', backbone)
    shapes |= with_prefix('proposal_generator.fcos_head.', _fcos_head(width, convs, classes, 'ctrness'))
    heads = _mask_head(width, convs) | _layer('deconv', width, width, 2, 2) | _layer('predictor', classes, width, 1, 1)
    shapes |= with_prefix('roi_heads.mask_head.', heads)
    heads = _maskiou_head(width, convs) | _layer('maskiou', classes, 1024)
    return shapes | with_prefix('roi_heads.maskiou_head.', heads)


def semantic_head(classes: int = 54) -> Shapes:
    """Return the additional tensors of a panoptic model of CenterMask2: level P2 and the semantic head."""
    shapes = _layer('backbone.fpn_lateral2', 256, 256, 1, 1) | _layer('backbone.fpn_output2', 256, 256, 3, 3)
    for conv, channels in {
        'p2.0': 256,
        'p3.0': 256,
        'p4.0': 256,
        'p4.2': 128,
        'p5.0': 256,
        'p5.2': 128,
        'p5.4': 128,
    }.items():
        shapes[f'sem_seg_head.{conv}.weight'] = (128, channels, 3, 3)
        shapes |= _norm(f'sem_seg_head.{conv}.norm', 128, False)
    return shapes | _layer('sem_seg_head.predictor', classes, 128, 1, 1)


def paper(
    backbone: Shapes, channels: tuple[int, int, int], lite: bool = False, scoring: bool = True, classes: int = 80
) -> Shapes:
    """Return a model of CenterMask's first release, with or without mask scoring."""
    width, convs = (128, 2) if lite else (256, 4)
    shapes = with_prefix('backbone.body.', backbone)
    for level, its_channels in enumerate(channels, 2):
        shapes |= _layer(f'backbone.fpn.fpn_inner{level}', width, its_channels, 1, 1)
        shapes |= _layer(f'backbone.fpn.fpn_layer{level}', width, width, 3, 3)
    for level in ('p6', 'p7'):
        shapes |= _layer(f'backbone.fpn.top_blocks.{level}', width, width, 3, 3)
    shapes |= with_prefix('rpn.head.', _fcos_head(width, convs, classes, 'centerness'))
    shapes |= with_prefix('roi_heads.mask.feature_extractor.', _mask_head(width, convs))
    shapes |= _layer('roi_heads.mask.predictor.conv5_mask', width, width, 2, 2)
    shapes |= _layer('roi_heads.mask.predictor.mask_fcn_logits', classes + 1, width, 1, 1)
    if scoring:
        shapes |= with_prefix('roi_heads.maskiou.feature_extractor.', _maskiou_head(width, convs))
        shapes |= _layer('roi_heads.maskiou.predictor.maskiou', classes + 1, 1024)
    return shapes


PIXELS: Shapes = {'pixel_mean': (3, 1, 1), 'pixel_std': (3, 1, 1)}


def lite_star(classes: int = 80) -> Shapes:
    """Return the smallest model of CenterMask2, with Detectron2's entries for the pixels' mean and deviation."""
    return PIXELS | star(vovnet('19-slim'), (256, 384, 512), lite=True, classes=classes)


def lite_paper(classes: int = 80) -> Shapes:
    """Return the smallest model of the first release with mask scoring."""
    return paper(vovnet('19'), (512, 768, 1024), lite=True, classes=classes)


def empty(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return tensors of these shapes that take no memory and hardly any space in a file."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def filled(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Tensor]:
    """Return tensors of random values, variances above 0."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator) * 0.05
        weights[name] = (values.abs() + 0.5 if name.endswith(('running_var', '_riv')) else values).to(dtype)
    return weights
