"""Fig. 2 drawn from what was measured of a model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from mmengine.config import Config

from centermask.figures.architecture import Architecture, Part, measure
from centermask.utils.atomic_io import write_aside

BACKBONE, NECK, BOXES, MASKS, SCORES, PLAIN = '#dbe7f5', '#e3f1e1', '#fdebd3', '#f9dede', '#ece2f4', '#f3f3f3'
LINE, TO_BOX_HEAD, TO_MASK_HEAD = '#555', '#b98a3c', '#b04a4a'
DPI = 110
# Rows from the image at the bottom; stages end on the row of C5, where P5 stands beside it.
FIRST_ROW, ROW, LAST_STAGE = 3.0, 9.4, 5


def draw_architecture(config: Config, title: str, path: Path) -> Architecture:
    """Draw a config's model as an SVG file (or a PNG file, by the name's ending).

    Args:
        config: of a CenterMask.
        title: above the figure.
        path: file to write.

    Returns:
        What was measured.

    Raises:
        InputError: as for :func:`~centermask.figures.architecture.measure`.
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
