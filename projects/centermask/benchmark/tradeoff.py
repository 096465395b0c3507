"""Fig. 1: mask AP against time, of methods (Table 5), of backbones under CenterMask (Table 3) and of a benchmark."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from centermask.benchmark.metafile import Row
from centermask.benchmark.models import AS_SHIPPED
from centermask.utils.atomic_io import atomic_write
from centermask.utils.errors import InputError

DPI = 150
MARKERS = {'V100': 'o', 'Titan Xp': '^'}
CLOSE, FAR = 9, 45  # offsets of labels in points


class Point(NamedTuple):
    """A model in the plane.

    Attributes:
        family: gives the colour and the line.
        label: text beside the point.
        ms, ap: time of an image and mask AP.
        hardware: that the time was measured on.
    """

    family: str
    label: str
    ms: float
    ap: float
    hardware: str


def paper_points(rows: Sequence[Row], table: int) -> list[Point]:
    """Return the points of Table 3 (backbones) or 5 (methods)."""
    points = []
    time = 'ms' if table == 5 else 'ms (Titan Xp)'
    for row in rows:
        if row.table != table or not {'mask AP', time} <= row.paper.keys():
            continue
        family, _, label = row.names['Backbone'].partition('-')
        if table == 5:
            family, label = row.names['Method'], row.names['Backbone'].removesuffix('-FPN')
            if family.startswith('YOLACT'):
                family, _, size = family.partition('-')
                label = f'{size} {label}'
        ms, ap = float(row.paper[time]), float(row.paper['mask AP'])
        points.append(Point(family, label or family, ms, ap, str(row.paper.get('GPU', 'Titan Xp'))))
    return points


def read_benchmark(path: Path, rows: Sequence[Row]) -> tuple[str, list[Point], list[str]]:
    """Return a benchmark's machine, its models as points, and the names of those whose mask AP is unknown.

    Args:
        path: JSON file {"machine": "…", "models": [{"config": "centermask_v2-39_fpn_1x_coco", "ms": 123.4}, …]}, as
            tools/benchmark.py writes it. A model's "mask AP" counts before the paper's in Table 5 or 3.
        rows: of the paper's tables.

    Raises:
        InputError: the file is missing or of another form.
    """
    in_paper: dict[str, float] = {}
    for row in sorted(rows, key=lambda row: -row.table):
        if row.table in (3, 5) and 'mask AP' in row.paper:
            in_paper.setdefault(Path(row.config).stem, float(row.paper['mask AP']))
    points, unknown = [], []
    try:
        benchmark = json.loads(path.read_text(encoding='utf-8'))
        machine = str(benchmark['machine'])
        for model in benchmark['models']:
            config, variant, ms = Path(model['config']).stem, model.get('variant', AS_SHIPPED.name), float(model['ms'])
            ap = model.get('mask AP')
            ap = in_paper.get(config) if ap is None else float(ap)
            if not math.isfinite(ms + (ap or 0)):
                raise ValueError('not finite')
            label = config.removesuffix('_coco').replace('_fpn', '') + (
                f', {variant}' if variant != AS_SHIPPED.name else ''
            )
            if ap is None:
                unknown.append(config)
            else:
                points.append(Point(label, label, ms, ap, machine))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): give a benchmark's JSON file.") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{path} is no benchmark: it must hold {{"machine": NAME, "models": [{{"config": NAME, "ms": NUMBER}}]}}.'
        ) from error
    return machine, points, list(dict.fromkeys(unknown))


def draw_tradeoff(rows: Sequence[Row], path: Path, benchmark: Path | None = None) -> list[str]:
    """Draw the paper's two panels, and one with a benchmark's points if there are any.

    Args:
        rows: of the paper's tables.
        path: image to write.
        benchmark: file for :func:`read_benchmark`.

    Returns:
        Names of the benchmark's models that are not in the plot, since their mask AP is unknown.

    Raises:
        InputError: the benchmark can't be used.
    """
    panels = [
        (paper_points(rows, 5), 'Table 5: methods on COCO test-dev; ● on V100, ▲ on Titan Xp'),
        (paper_points(rows, 3), 'Table 3: backbones under CenterMask on COCO val; on Titan Xp'),
    ]
    unknown: list[str] = []
    if benchmark:
        machine, points, unknown = read_benchmark(benchmark, rows)
        if points:
            panels.append((points, f"Time on {machine}; mask AP is the paper's where none is given"))
    figure = Figure(figsize=(7.2, 4.6 * len(panels)), dpi=DPI, layout='constrained')
    axes = figure.subplots(len(panels), 1)
    labels = [_draw(*panel) for panel in zip(axes, *zip(*panels, strict=True), strict=True)]
    axes[0].set_xscale('log')
    axes[0].set_xticks([20, 30, 40, 60, 80, 120, 200, 400], [20, 30, 40, 60, 80, 120, 200, 400])
    axes[0].minorticks_off()
    figure.draw_without_rendering()  # lays out the panels
    for panel, of_panel in zip(axes, labels, strict=True):
        _spread(panel, of_panel)
    atomic_write(path, partial(figure.savefig, dpi=DPI))
    return unknown


def _draw(axes: Axes, points: Sequence[Point], title: str) -> list[Annotation]:
    """Draw a panel and return the labels of its points."""
    labels = []
    families = list(dict.fromkeys(point.family for point in points))
    for i, family in enumerate(families):
        colour: Any = matplotlib.colormaps['tab10'](i % 10)
        members = sorted((point for point in points if point.family == family), key=lambda point: point.ms)
        axes.plot([point.ms for point in members], [point.ap for point in members], color=colour, alpha=0.25)
        for point in members:
            marker = MARKERS.get(point.hardware, 's')
            name = family if point is members[0] else None
            axes.plot(point.ms, point.ap, marker, color=colour, markersize=6.5, label=name)
            at = dict(textcoords='offset points', ha='center', va='center', fontsize=7.5, color=colour)
            labels.append(axes.annotate(point.label, (point.ms, point.ap), (0, CLOSE), **at))
    axes.set_title(title, fontsize=10)
    axes.set_xlabel('ms an image', fontsize=9)
    axes.set_ylabel('mask AP', fontsize=9)
    axes.margins(x=0.12, y=0.15)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color='#eee')
    if len(families) < len(points):
        axes.legend(frameon=False, fontsize=8.5, loc='lower right')
    return labels


def _spread(axes: Axes, labels: Sequence[Annotation]) -> None:
    """Move each label to the nearest position inside the axes where it covers no point and no other label."""
    frame = axes.get_window_extent()
    pixels = DPI / 72  # of a typographic point
    taken = [Bbox([point, point]).padded(4 * pixels) for point in axes.transData.transform([one.xy for one in labels])]
    if legend := axes.get_legend():
        taken.append(legend.get_window_extent())
    for label in sorted(labels, key=lambda label: label.xy):
        extent = label.get_window_extent()
        beside = extent.width / 2 / pixels + 6
        offsets = [(x, y) for y in range(-FAR, FAR + 1, 3) for x in (0, beside / 2, -beside / 2, beside, -beside)]
        for dx, dy in sorted(offsets, key=lambda at: math.hypot(at[0] / 2, at[1])):
            moved = extent.translated(dx * pixels, (dy - CLOSE) * pixels).expanded(1.03, 1)
            inside = frame.x0 <= moved.x0 and moved.x1 <= frame.x1 and frame.y0 <= moved.y0 and moved.y1 <= frame.y1
            if inside and not moved.count_overlaps(taken):
                label.xyann = (dx, dy)
                taken.append(moved)
                break
