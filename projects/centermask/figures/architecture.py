"""What a model is made of, measured on the built model, so that Fig. 2 stays true."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmcv.ops import ModulatedDeformConv2d
from mmdet.models import FCOSHead
from mmengine.config import Config
from torch import Tensor, nn

from centermask.utils.errors import InputError
from centermask.tables.measure import build, padded_size, plain_deformable_convs
from centermask.vovnet import EffectiveSE, SqueezeExcitation

ATTENTION = {EffectiveSE: 'eSE', SqueezeExcitation: 'SE'}


class Part(NamedTuple):
    """A box of the figure: a title, what it is made of, and the shape of its output (channels, height, width)."""

    title: str
    detail: str
    shape: tuple[int, ...]

    @property
    def size(self) -> str:
        return '×'.join(map(str, self.shape))


class Architecture(NamedTuple):
    """What a model is made of, from the image on.

    Attributes:
        image: height and width of the padded image.
        backbone: stem and stages.
        taken: index into ``backbone`` of each stage that the neck takes.
        neck: the class that makes the pyramid.
        levels: of the pyramid; the finest first.
        towers: of the box head, for classes and for boxes, on the finest level.
        outputs: of the box head on the finest level.
        pooled: names of the levels that RoIs are pooled from, empty without a mask branch.
        assignment: how they are assigned.
        mask_head, scoring_head: layers for one RoI; empty where the model has none.
    """

    image: tuple[int, int]
    backbone: list[Part]
    taken: list[int]
    neck: str
    levels: list[Part]
    towers: list[Part]
    outputs: list[Part]
    pooled: list[str]
    assignment: str
    mask_head: list[Part]
    scoring_head: list[Part]


@contextmanager
def _shapes(modules: dict[str, nn.Module]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Record the shape of the first output of each module, without the batch's dimension."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple | list) else output
            shapes.setdefault(name, tuple(tensor.shape[1:]))

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in modules.items()]
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


def measure(config: Config) -> Architecture:
    """Build a config's model without memory and measure it on one image of its test size.

    Raises:
        InputError: the model can't be built or is no CenterMask.
    """
    another = InputError(
        f'{config.filename} is not the config of a CenterMask, whose architecture is drawn: give one that is.'
    )
    if config.get('model', {}).get('type') != 'CenterMask':
        raise another
    model: Any = build(config)
    if not isinstance(model.bbox_head, FCOSHead):  # RetinaMask
        raise another
    height, width = padded_size(config)
    image = torch.empty(1, 3, height, width, device='meta')

    stages = _stages(model.backbone)
    of_stages = {title: module for title, (module, _) in stages.items()}
    with torch.no_grad(), plain_deformable_convs(), _shapes(of_stages) as shapes:
        features = model.backbone(image)
        levels = model.neck(features)
    backbone = [Part(title, detail, shapes[title]) for title, (_, detail) in stages.items()]
    if not backbone:
        backbone = [Part(f'C{_level(f, height)}', '', tuple(f.shape[1:])) for f in features]
    taken = [max(i for i, part in enumerate(backbone) if part.shape == tuple(f.shape[1:])) for f in features]
    towers, outputs = _box_head(model.bbox_head, levels)
    pooled, assignment, mask_head, scoring_head = _mask_branch(model)
    return Architecture(
        image=(height, width),
        backbone=backbone,
        taken=taken,
        neck=type(model.neck).__name__,
        levels=[
            Part(f'P{_level(level, height)}', f'stride {2 ** _level(level, height)}', tuple(level.shape[1:]))
            for level in levels
        ],
        towers=towers,
        outputs=outputs,
        pooled=pooled,
        assignment=assignment,
        mask_head=mask_head,
        scoring_head=scoring_head,
    )


def _level(features: Tensor, height: int) -> int:
    """The k of a feature map of stride 2^k; the coarsest are rounded up by a pixel."""
    return round(math.log2(height / features.shape[2]))


def _count(modules: Sequence[nn.Module], what: str) -> str:
    return f'{len(modules)} × {what}'


def _stages(backbone: Any) -> dict[str, tuple[nn.Module, str]]:
    """Stem and stages of a VoVNet or a ResNet with what they are made of; nothing of other backbones."""
    if hasattr(backbone, 'stages') and hasattr(backbone, 'stem'):
        found = {'Stem': (backbone.stem, f'{len(backbone.stem)} × 3×3 conv')}
        for number, stage in enumerate(backbone.stages, 2):
            last = stage.blocks[-1]
            extras = [ATTENTION[type(last.attention)]] if type(last.attention) in ATTENTION else []
            extras += ['residual'] if last.residual else []
            extras += ['deformable'] if isinstance(last.convs[0].conv, ModulatedDeformConv2d) else []
            detail = f'{_count(stage.blocks, "OSA")} of {len(last.convs)} convs'
            found[f'Stage {number}'] = (stage, ', '.join([detail, *extras]))
        return found
    if hasattr(backbone, 'res_layers'):
        found = {'Stem': (backbone.maxpool, '7×7 conv, max pool')}
        for number, name in enumerate(backbone.res_layers, 2):
            layer = getattr(backbone, name)
            groups = layer[0].conv2.groups
            found[f'Stage {number}'] = (
                layer,
                _count(layer, 'bottleneck') + (f', {groups} groups' if groups > 1 else ''),
            )
        return found
    return {}


def _box_head(head: Any, levels: Sequence[Tensor]) -> tuple[list[Part], list[Part]]:
    """The towers of a box head and what is predicted from them, with their shapes on the finest level."""
    towers = {'class tower': head.cls_convs, 'box tower': head.reg_convs}
    predictors = {'classes': head.conv_cls, 'boxes': head.conv_reg, 'centerness': head.conv_centerness}
    under = {'classes': 'class tower', 'boxes': 'box tower'}
    under['centerness'] = 'box tower' if head.centerness_on_reg else 'class tower'
    with torch.no_grad(), _shapes({**{name: convs[-1] for name, convs in towers.items()}, **predictors}) as shapes:
        head(levels)
    return (
        [Part(name, _count(convs, '3×3 conv, GN'), shapes[name]) for name, convs in towers.items()],
        [Part(name, f'3×3 conv on the {under[name]}', shapes[name]) for name in predictors],
    )


def _mask_branch(model: Any) -> tuple[list[str], str, list[Part], list[Part]]:
    """The levels that RoIs are pooled from, how they are assigned, and the layers of both heads for one RoI."""
    roi_head = model.roi_head
    if roi_head is None:
        return [], '', [], []
    extractor, head, scoring = roi_head.mask_roi_extractor, roi_head.mask_head, roi_head.mask_iou_head
    features = torch.empty(1, extractor.out_channels, *extractor.roi_layers[0].output_size, device='meta')
    modules = {'convs': head.convs[-1], 'upsample': head.upsample}
    attention = not isinstance(head.spatial_attention, nn.Identity)
    if attention:
        modules['attention'] = head.spatial_attention
    if scoring is not None:
        modules |= {f'scoring {i}': conv for i, conv in enumerate(scoring.convs)}
        modules |= {f'fc {i}': fc for i, fc in enumerate(scoring.fcs)}
    with torch.no_grad(), _shapes(modules) as shapes:
        roi_head.forward_heads(features, torch.zeros(1, dtype=torch.long, device='meta'))
    shapes['features'] = tuple(features.shape[1:])
    mask_head = [
        Part('RoIAlign', 'of each box', shapes['features']),
        Part('convs', _count(head.convs, '3×3 conv'), shapes['convs']),
        *([Part('SAM', 'spatial attention', shapes['attention'])] if attention else []),
        Part('upsampling', '2×2 deconv, stride 2', shapes['upsample']),
        Part('mask', '1×1 conv', (head.conv_logits.out_channels, *shapes['upsample'][1:])),
    ]
    scoring_head = []
    if scoring is not None:
        channels = scoring.convs[0].in_channels
        scoring_head = [
            Part('features + mask', 'mask pooled 2×2, one channel', (channels, *shapes['features'][1:])),
            Part(
                'convs',
                _count(scoring.convs, '3×3 conv') + ', last stride 2',
                shapes[f'scoring {len(scoring.convs) - 1}'],
            ),
            Part('layers', _count(scoring.fcs, 'fully connected'), shapes[f'fc {len(scoring.fcs) - 1}']),
            Part('mask IoU', 'of each class', (scoring.fc_mask_iou.out_features,)),
        ]
    names = [f'P{extractor.k_min + i}' for i in range(extractor.num_inputs)]
    return names, {'fpn': 'Eq. 1', 'scale_adaptive': 'Eq. 2'}[extractor.assignment], mask_head, scoring_head
