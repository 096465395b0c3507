"""Fig. 2: the architecture of a model, drawn from what is built and measured, so that it stays true."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from mmcv.ops import ModulatedDeformConv2d
from mmdet.models import FCOSHead
from mmengine.config import Config
from torch import Tensor, nn

from centermask.errors import InputError
from centermask.folders import write_aside
from centermask.tables.measure import build, input_size, plain_deformable_convs
from centermask.vovnet import EffectiveSE, SqueezeExcitation

BACKBONE, NECK, BOXES, MASKS, SCORES, PLAIN = '#dbe7f5', '#e3f1e1', '#fdebd3', '#f9dede', '#ece2f4', '#f3f3f3'
LINE, TO_BOX_HEAD, TO_MASK_HEAD = '#555', '#b98a3c', '#b04a4a'
ATTENTION = {EffectiveSE: 'eSE', SqueezeExcitation: 'SE'}
DPI = 110
# Rows from the image at the bottom; stages end on the row of C5, where P5 stands beside it.
FIRST_ROW, ROW, LAST_STAGE = 3.0, 9.4, 5


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
    divisor = config.model.data_preprocessor.get('pad_size_divisor', 1)
    height, width = (-(-side // divisor) * divisor for side in input_size(config))
    image = torch.empty(1, 3, height, width, device='meta')

    stages = _stages(model.backbone)
    towers = {'class tower': model.bbox_head.cls_convs, 'box tower': model.bbox_head.reg_convs}
    predictors = {
        'classes': model.bbox_head.conv_cls,
        'boxes': model.bbox_head.conv_reg,
        'centerness': model.bbox_head.conv_centerness,
    }
    heads = {**{name: convs[-1] for name, convs in towers.items()}, **predictors}
    of_stages = {title: module for title, (module, _) in stages.items()}
    with torch.no_grad(), plain_deformable_convs(), _shapes(of_stages) as shapes:
        features = model.backbone(image)
        levels = model.neck(features)
    with torch.no_grad(), _shapes(heads) as of_heads:
        model.bbox_head(levels)
    backbone = [Part(title, detail, shapes[title]) for title, (_, detail) in stages.items()]
    if not backbone:
        backbone = [Part(f'C{_level(f, height)}', '', tuple(f.shape[1:])) for f in features]
    taken = [max(i for i, part in enumerate(backbone) if part.shape == tuple(f.shape[1:])) for f in features]
    on_boxes = 'box' if model.bbox_head.centerness_on_reg else 'class'
    details = {'classes': 'class tower', 'boxes': 'box tower', 'centerness': f'{on_boxes} tower'}
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
        towers=[Part(name, _count(convs, '3×3 conv, GN'), of_heads[name]) for name, convs in towers.items()],
        outputs=[Part(name, f'3×3 conv on the {details[name]}', of_heads[name]) for name in predictors],
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


def _mask_branch(model: Any) -> tuple[list[str], str, list[Part], list[Part]]:
    """The levels that RoIs are pooled from, how they are assigned, and the layers of both heads for one RoI."""
    roi_head = model.roi_head
    if roi_head is None:
        return [], '', [], []
    extractor, head, scoring = roi_head.mask_roi_extractor, roi_head.mask_head, roi_head.mask_iou_head
    features = torch.empty(1, extractor.out_channels, *extractor.roi_layers[0].output_size, device='meta')
    modules = {'convs': head.convs[-1], 'upsample': head.upsample, 'logits': head.conv_logits}
    attention = not isinstance(head.spatial_attention, nn.Identity)
    if attention:
        modules['attention'] = head.spatial_attention
    if scoring is not None:
        modules |= {f'scoring {i}': conv for i, conv in enumerate(scoring.convs)}
        modules |= {f'fc {i}': fc for i, fc in enumerate(scoring.fcs)} | {'iou': scoring.fc_mask_iou}
    with torch.no_grad(), _shapes(modules) as shapes:
        logits = head(features)
        if scoring is not None:
            scoring(features, logits[:, 0])
    shapes['features'] = tuple(features.shape[1:])
    mask_head = [
        Part('RoIAlign', 'of each box', shapes['features']),
        Part('convs', _count(head.convs, '3×3 conv'), shapes['convs']),
        *([Part('SAM', 'spatial attention', shapes['attention'])] if attention else []),
        Part('upsampling', '2×2 deconv, stride 2', shapes['upsample']),
        Part('mask', '1×1 conv', shapes['logits']),
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
            Part('mask IoU', 'of each class', shapes['iou']),
        ]
    names = [f'P{extractor.k_min + i}' for i in range(extractor.num_inputs)]
    return names, {'fpn': 'Eq. 1', 'scale_adaptive': 'Eq. 2'}[extractor.assignment], mask_head, scoring_head


def draw_architecture(config: Config, title: str, path: Path) -> Architecture:
    """Draw a config's model as an SVG file (or a PNG file, by the name's ending).

    Args:
        config: of a CenterMask.
        title: above the figure.
        path: file to write.

    Returns:
        What was measured.

    Raises:
        InputError: as for :func:`measure`.
    """
    found = measure(config)
    figure = Figure(figsize=(16, 8.6))  # a unit of the axes is a tenth of an inch
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 160)
    axes.set_ylim(0, 86)
    axes.axis('off')
    axes.text(3, 82.6, title, fontsize=15, weight='bold', va='center')
    _draw(axes, found)
    # Text stays text, to be searched and read aloud; the same model gives the same bytes.
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'centermask'}):
        write_aside(path, partial(figure.savefig, dpi=DPI, metadata={'Date': None} if path.suffix == '.svg' else None))
    return found


class _Box(NamedTuple):
    left: float
    bottom: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.bottom + self.height / 2

    @property
    def centre(self) -> float:
        return self.left + self.width / 2

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def top(self) -> float:
        return self.bottom + self.height


def _draw(axes: Axes, found: Architecture) -> None:
    _heading(axes, 13.5, 'backbone')
    image = _box(axes, _place(3, 21, 0), PLAIN, 'image', '', f'3×{found.image[0]}×{found.image[1]}')
    first = LAST_STAGE + 1 - len(found.backbone)
    stages = [
        _box(axes, _place(3, 21, first + i), BACKBONE, *part[:2], part.size) for i, part in enumerate(found.backbone)
    ]
    for below, above in zip([image, *stages], stages, strict=False):
        _arrow(axes, (below.centre, below.top), (above.centre, above.bottom))

    _heading(axes, 40.5, f'feature pyramid ({found.neck})')
    levels = [_box(axes, _place(32, 17, int(part.title[1:])), NECK, *part[:2], part.size) for part in found.levels]
    taken = [stages[i] for i in found.taken]
    if found.neck == 'FPN':
        for stage, level in zip(taken, levels, strict=False):
            _arrow(axes, (stage.right, stage.middle), (level.left, level.middle))
        for number, (below, above) in enumerate(itertools.pairwise(levels)):
            # Top down where both come from the backbone, else the coarser one is made from the finer one.
            up = number + 1 >= len(taken)
            ends = ((below.centre, below.top), (above.centre, above.bottom))
            _arrow(axes, *(ends if up else ends[::-1]))
    else:  # every level is made from all of them
        for stage, level in itertools.product(taken, levels):
            _arrow(axes, (stage.right, stage.middle), (level.left, level.middle), width=0.7)

    boxes = _draw_box_head(axes, found, levels)
    if found.mask_head:
        _draw_mask_branch(axes, found, levels, boxes)


def _place(left: float, width: float, row: int) -> _Box:
    return _Box(left, FIRST_ROW + row * ROW, width, ROW - 2)


def _draw_box_head(axes: Axes, found: Architecture, levels: Sequence[_Box]) -> _Box:
    """Draw it and what it ends in, the boxes."""
    title = f'box head (FCOS), shared by all levels; shapes on {found.levels[0].title}'
    frame = _frame(axes, _Box(60, 52 if found.mask_head else 34, 62, 25), title, 1.5)
    for level in levels:
        _arrow(axes, (level.right, level.middle), (frame.left, frame.middle), TO_BOX_HEAD, 0.8)
    towers = [
        _box(axes, _Box(frame.left + 3, frame.bottom + 12.5 - 10.5 * i, 21, 8), BOXES, *part[:2], part.size)
        for i, part in enumerate(found.towers)
    ]
    outputs = [
        _box(axes, _Box(frame.left + 33, frame.bottom + 15 - 6.8 * i, 27, 5.8), BOXES, *part[:2], part.size, flat=True)
        for i, part in enumerate(found.outputs)
    ]
    for part, output in zip(found.outputs, outputs, strict=True):
        tower = towers[1] if 'box tower' in part.detail else towers[0]
        _arrow(axes, (tower.right, tower.middle), (output.left, output.middle))
    boxes = _box(axes, _Box(135, frame.middle - 3.7, 22, 7.4), PLAIN, 'boxes', 'scores, NMS', '')
    _arrow(axes, (frame.right, frame.middle), (boxes.left, boxes.middle))
    return boxes


def _draw_mask_branch(axes: Axes, found: Architecture, levels: Sequence[_Box], boxes: _Box) -> None:
    """Draw the mask head below the box head, and the mask scoring head below that."""
    name = 'SAG-Mask head' if any(part.title == 'SAM' for part in found.mask_head) else 'mask head'
    frame = _Box(60, 26.5, 97, 16.5)
    chain = _chain(axes, found.mask_head, frame, MASKS, f'{name}, for each box')
    for part, level in zip(found.levels, levels, strict=True):
        if part.title in found.pooled:
            _arrow(axes, (level.right, level.middle - 2), (chain[0].left, chain[0].middle), TO_MASK_HEAD, 1.4)
    way = [(boxes.centre, boxes.bottom), (boxes.centre, 47.5), (chain[0].centre, 47.5), (chain[0].centre, chain[0].top)]
    _path(axes, way, TO_MASK_HEAD)
    text = f'each box is pooled from one of {found.pooled[0]} to {found.pooled[-1]}, by {found.assignment}'
    axes.text(boxes.centre - 2, 49, text, fontsize=9, color=TO_MASK_HEAD, ha='right', va='center')
    if found.scoring_head:
        frame = _Box(60, 3, 97, 16.5)
        scoring = _chain(
            axes, found.scoring_head, frame, SCORES, 'mask scoring head: how well does a mask cover its object?'
        )
        start = scoring[0]
        _arrow(axes, (chain[0].centre, chain[0].bottom), (chain[0].centre, start.top))
        turn = start.right - 3
        _path(axes, [(chain[-1].centre, chain[-1].bottom), (chain[-1].centre, 23), (turn, 23), (turn, start.top)], LINE)


def _chain(axes: Axes, parts: Sequence[Part], frame: _Box, colour: str, title: str) -> list[_Box]:
    gap = 4.0
    width = (frame.width - 4 - gap * (len(parts) - 1)) / len(parts)
    _frame(axes, frame, title, width + gap)
    boxes = [
        _box(axes, _Box(frame.left + 2 + i * (width + gap), frame.bottom + 2, width, 10), colour, *part[:2], part.size)
        for i, part in enumerate(parts)
    ]
    for before, after in itertools.pairwise(boxes):
        _arrow(axes, (before.right, before.middle), (after.left, after.middle))
    return boxes


def _heading(axes: Axes, x: float, text: str) -> None:
    axes.text(x, 79.5, text, fontsize=10.5, color='#444', ha='center', va='center')


def _frame(axes: Axes, box: _Box, title: str, indent: float) -> _Box:
    rounded = 'round,pad=0,rounding_size=1'
    axes.add_patch(FancyBboxPatch(box[:2], box.width, box.height, rounded, fc='none', ec='#999', lw=1, ls='--'))
    axes.text(box.left + indent, box.top - 2.1, title, fontsize=10.5, color='#444', va='center')
    return box


def _box(axes: Axes, box: _Box, colour: str, title: str, detail: str, size: str, flat: bool = False) -> _Box:
    axes.add_patch(
        FancyBboxPatch(box[:2], box.width, box.height, 'round,pad=0,rounding_size=0.8', fc=colour, ec=LINE, lw=1)
    )
    lines = [(f'{title}   {size}', 9.5, 'bold')] if flat else [(title, 10, 'bold'), (size, 9.5, 'normal')]
    lines.insert(1, (detail, 7.5, 'normal'))
    lines = [line for line in lines if line[0]]
    for i, (text, fontsize, weight) in enumerate(lines):
        y = box.top - (i + 0.5) * box.height / len(lines)
        axes.text(box.centre, y, text, fontsize=fontsize, weight=weight, ha='center', va='center_baseline')
    return box


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = LINE, width: float = 1.1
) -> None:
    style = dict(arrowstyle='-|>', color=colour, linewidth=width, shrinkA=0, shrinkB=0)
    axes.annotate('', end, start, arrowprops=style)


def _path(axes: Axes, points: Sequence[tuple[float, float]], colour: str) -> None:
    """An arrow around corners."""
    axes.plot(*zip(*points[:-1], strict=True), color=colour, linewidth=1.4, solid_joinstyle='miter')
    _arrow(axes, points[-2], points[-1], colour, 1.4)
