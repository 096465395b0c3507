"""Fig. 1: mask AP against time, of methods (Table 5) and of backbones under CenterMask (Table 3)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from centermask.benchmark.models import SHIPPED
from centermask.tables.index import Row
from centermask.utils.atomic_io import atomic_write
from centermask.utils.errors import InputError

DPI = 150
MARKERS = {'V100': 'o', 'Titan Xp': '^'}
# CenterMask's in warm colours, as the paper's eye-catchers.
COLOURS = {
    'CenterMask*': '#8c1c13',
    'CenterMask': '#d1495b',
    'CenterMask-Lite': '#e8871e',
    'Mask R-CNN': '#2b59a3',
    'RetinaMask': '#5f8fd0',
    'ShapeMask': '#2a7f62',
    'TensorMask': '#6b6b6b',
    'YOLACT': '#7b4fa0',
    'VoVNetV2': '#d1495b',
    'VoVNetV1': '#e8871e',
    'HRNetV2': '#2a7f62',
    'ResNe(X)t': '#2b59a3',
    'MobileNetV2': '#7b4fa0',
}
# Where a label above its point would cover something: offset in points to the start of the text, or its end if dx < 0.
SHIFT = {
    ('CenterMask-Lite', 'V-19'): (-7, 4),
    ('CenterMask-Lite', 'V-39'): (-7, 4),
    ('CenterMask-Lite', 'R-50'): (7, 0),
    ('YOLACT', '400 R-101'): (8, -2),
    ('YOLACT', '550 R-50'): (8, -4),
    ('YOLACT', '550 R-101'): (7, -6),
    ('CenterMask', 'R-101'): (-7, -3),
    ('CenterMask', 'V-99'): (7, 4),
    ('CenterMask*', 'R-101'): (-7, 0),
    ('CenterMask*', 'V-99'): (7, 4),
    ('VoVNetV2', '19'): (-7, 4),
    ('VoVNetV2', '39'): (7, -3),
    ('VoVNetV2', '57'): (-6, 6),
    ('VoVNetV1', '39'): (-8, 0),
    ('VoVNetV1', '57'): (9, 1),
    ('VoVNetV1', '99'): (8, 0),
    ('HRNetV2', 'W18'): (8, -3),
    ('HRNetV2', 'W32'): (6, -9),
    ('ResNe(X)t', 'ResNet-50'): (0, -11),
    ('ResNe(X)t', 'ResNet-101'): (-2, 9),
    ('MobileNetV2', 'MobileNetV2'): (8, 0),
}


class Point(NamedTuple):
    """A model in the plane.

    Attributes:
        family: gives the colour.
        line: points that have it in common are joined.
        label: text beside the point.
        ms, ap: time of an image and mask AP.
        hardware: that the time was measured on.
    """

    family: str
    line: str
    label: str
    ms: float
    ap: float
    hardware: str


def methods(rows: Sequence[Row]) -> list[Point]:
    """The points of Table 5."""
    points = []
    for row in rows:
        if row.table == 5 and {'mask AP', 'ms', 'GPU'} <= row.paper.keys():
            method, _, size = row.names['Method'].partition('-')
            family = 'YOLACT' if method == 'YOLACT' else row.names['Method']
            label = f'{size} {row.names["Backbone"]}' if family == 'YOLACT' else row.names['Backbone']
            label = label.removesuffix('-FPN')
            line = family if family == 'YOLACT' else f'{family} {label.partition("-")[0]}'
            points.append(Point(family, line, label, *_numbers(row, 'ms'), str(row.paper['GPU'])))
    return points


def backbones(rows: Sequence[Row]) -> list[Point]:
    """The points of Table 3."""
    points = []
    for row in rows:
        if row.table == 3 and {'mask AP', 'ms (Titan Xp)'} <= row.paper.keys():
            family, _, size = row.names['Backbone'].partition('-')
            family = 'ResNe(X)t' if family in ('ResNet', 'ResNeXt') else family
            label = row.names['Backbone'] if family in ('ResNe(X)t', 'MobileNetV2') else size
            points.append(Point(family, family, label, *_numbers(row, 'ms (Titan Xp)'), 'Titan Xp'))
    return points


def _numbers(row: Row, time: str) -> tuple[float, float]:
    return float(row.paper[time]), float(row.paper['mask AP'])


class Benchmark(NamedTuple):
    """A machine's name, its points, and the models that have none since their mask AP is not known."""

    machine: str
    points: list[Point]
    left_out: list[str]


def read_benchmark(path: Path, rows: Sequence[Row]) -> Benchmark:
    """Times measured on a machine, each at its model's mask AP.

    Args:
        path: JSON file {"machine": "…", "models": [{"config": "centermask_v2-39_fpn_1x_coco", "ms": 123.4}, …]}, as
            tools/benchmark.py writes it; a model may bring its own "mask AP", else the paper's in Table 5 or 3 counts,
            and one whose "mask AP" is null is left out where these don't have it. What its "way" adds to the config is
            told beside its point.
        rows: of the paper's tables.

    Raises:
        InputError: the file is missing or of another form, or neither it nor the paper says anything of a mask AP.
    """
    in_paper: dict[str, float] = {}
    for row in sorted(rows, key=lambda row: -row.table):
        if row.config and row.table in (3, 5) and 'mask AP' in row.paper:
            in_paper.setdefault(row.config, float(row.paper['mask AP']))
    try:
        benchmark = json.loads(path.read_text(encoding='utf-8'))
        machine = str(benchmark['machine'])
        models = [
            (Path(model['config']).stem, model.get('way', SHIPPED), float(model['ms']), model.get('mask AP', ''))
            for model in benchmark['models']
        ]
        if not all(math.isfinite(number) for _, _, ms, ap in models for number in (ms, float(ap or 0))):
            raise ValueError('no number')
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): give a benchmark's JSON file.") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{path} is no benchmark: it must hold {{"machine": NAME, "models": [{{"config": NAME, "ms": NUMBER}}]}}.'
        ) from error
    points, left_out = [], []
    for config, way, ms, ap in models:
        if ap is None and config not in in_paper:
            left_out.append(config)
            continue
        if ap == '' and config not in in_paper:
            raise InputError(f'{path}: {config} is in neither Table 3 nor 5, so give its "mask AP" beside "ms".')
        label = config.removesuffix('_coco').replace('_fpn', '') + (f', {way}' if way != SHIPPED else '')
        points.append(Point('', label, label, ms, float(in_paper[config] if ap in (None, '') else ap), machine))
    return Benchmark(machine, points, list(dict.fromkeys(left_out)))


def draw_tradeoff(rows: Sequence[Row], path: Path, benchmark: Path | None = None) -> str:
    """Draw both panels as a PNG file, and a third with a machine's own points where there are any.

    Args:
        rows: of the paper's tables.
        path: where the picture goes.
        benchmark: file as :func:`read_benchmark` takes it.

    Returns:
        What to tell about models without a point; empty where all have one.

    Raises:
        InputError: the benchmark can't be used.
    """
    own = read_benchmark(benchmark, rows) if benchmark else None
    panels = 3 if own and own.points else 2
    figure = Figure(figsize=(7.2, 13.2 if panels == 3 else 9), dpi=DPI, layout='constrained')
    axes = figure.subplots(panels, 1)
    _draw(axes[0], methods(rows), "The paper's Table 5: methods on COCO test-dev; ● on V100, ▲ on Titan Xp")
    axes[0].set_xscale('log')
    axes[0].set_xticks([20, 30, 40, 60, 80, 120, 200, 400], [20, 30, 40, 60, 80, 120, 200, 400])
    axes[0].minorticks_off()
    axes[0].set_xlim(16, 480)
    _draw(axes[1], backbones(rows), "The paper's Table 3: backbones under CenterMask on COCO val; on Titan Xp")
    axes[1].set_xlim(50, 170)
    if own and own.points:
        title = f"Time measured on {own.machine}; mask AP is the paper's where none is given"
        labels = _draw(axes[2], own.points, title)
        figure.draw_without_rendering()  # lays out the panels
        _spread(axes[2], labels)
    atomic_write(path, partial(figure.savefig, dpi=DPI))
    left_out = own.left_out if own else []
    return f'not in the plot, since their mask AP is not known: {", ".join(left_out)}' if left_out else ''


def _spread(axes: Axes, labels: Sequence[Annotation]) -> None:
    """Move labels, as far as there is room, until each lies inside the axes and covers no point and no other label.

    A thin line leads from a label that is not beside its point to it.
    """
    frame = axes.get_window_extent()
    pixels = DPI / 72  # of a typographic point
    points = axes.transData.transform([label.xy for label in labels])
    taken = [Bbox([point, point]).padded(4 * pixels) for point in points]
    for label in sorted(labels, key=lambda label: label.xy):
        for dy in (9, -10, 20, -21, 31, -32, 42, -43, 9):  # at last above its point all the same
            label.xyann = (0, dy)
            box = label.get_window_extent()
            shift = max(frame.x0 - box.x0, 0) + min(frame.x1 - box.x1, 0)
            label.xyann = (shift / pixels, dy)
            box = label.get_window_extent().expanded(1.03, 1)
            if frame.y0 <= box.y0 and box.y1 <= frame.y1 and not box.count_overlaps(taken):
                break
        taken.append(box)
        if abs(dy) > 10:
            leader = dict(arrowstyle='-', color='#aaa', linewidth=0.6, shrinkA=0, shrinkB=3)
            axes.annotate('', label.xy, (shift / pixels, dy), textcoords='offset points', arrowprops=leader, zorder=1)


def _draw(axes: Axes, points: Sequence[Point], title: str) -> list[Annotation]:
    """Draw a panel and return the labels of its points."""
    labels = []
    families: dict[str, list[Point]] = {}
    for point in points:
        families.setdefault(point.family, []).append(point)
    for family, members in families.items():
        colour = COLOURS.get(family, '#333')
        for name in dict.fromkeys(point.line for point in members):
            line = sorted((point for point in members if point.line == name), key=lambda point: point.ms)
            axes.plot([p.ms for p in line], [p.ap for p in line], color=colour, linewidth=1.5)
        for point in members:
            marker = MARKERS.get(point.hardware, 's')
            label = family if point is members[0] else None
            axes.plot(point.ms, point.ap, marker, color=colour, markersize=6.5, label=label)
            dx, dy = SHIFT.get((family, point.label), (0, 9))
            label_of_point = axes.annotate(
                point.label,
                (point.ms, point.ap),
                (dx, dy),
                textcoords='offset points',
                ha='center' if dx == 0 else 'left' if dx > 0 else 'right',
                va='center',
                fontsize=7.5,
                color=colour,
            )
            labels.append(label_of_point)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel('ms an image', fontsize=9)
    axes.set_ylabel('mask AP', fontsize=9)
    axes.margins(x=0.2)
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.3, high + 0.8)
    if len(families) > 1:
        axes.legend(frameon=False, fontsize=8.5, loc='lower right')
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(labelsize=8.5)
    axes.grid(color='#e6e6e6', linewidth=0.7)
    axes.set_axisbelow(True)
    return labels
