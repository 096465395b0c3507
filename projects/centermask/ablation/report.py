"""What the ablation found, as a Markdown table and as a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from centermask.ablation.rows import ROWS, Row
from centermask.ablation.statistics import Interval, paired
from centermask.ablation.study import Results
from centermask.report.drawing import plain
from centermask.utils.atomic_io import write_aside
from centermask.report.plots import DPI, MASK_COLOUR
from centermask.tables.index import Row as PaperRow

KINDS = ('mask AP', 'box AP')
NOT_RESOLVED = 'not resolved at this scale'
RESOLVED_COLOUR = MASK_COLOUR
LEVEL_COLOURS = ('#1b3b6f', '#2f6fb0', '#6aa5d8', '#a9cbe8', '#dbe9f6')

NOTES = """\
AP in percent, the mean over seeds. Differences are paired: seed by seed to the row named, with their 95 % interval
(Student's t); an interval that holds 0 is "not resolved at this scale". RoIs: the share of a training's RoIs that each
level of the pyramid got.

The backbones of Tables 1 and 2 start from FCOS alone trained on other, smaller pictures, as the paper's start from
ImageNet. By Eq. 1 no RoI of a picture of 320 pixels reaches P5, and P4 only from 224 pixels on, nearly as by Eq. 2 with
P3-P4. In VoVNetV2-19-slim a residual connection would change nothing: it goes around every OSA module of a stage but
the first, and there each stage has one. V1 and V1 + residual are therefore compared on 19-slim's modules with the block
counts of VoVNet-99 (1, 3, 9, 3), from random weights; the paper's difference is that of VoVNet-99."""


class Comparison(NamedTuple):
    """A row beside the one that it is compared with.

    Attributes:
        row: the row.
        difference: paired, by kind of AP; None where either has no result or no such AP.
        paper: the paper's difference by kind.
    """

    row: Row
    difference: dict[str, Interval | None]
    paper: dict[str, float | None]


def compare(rows: Sequence[Row], results: Results, paper: Sequence[PaperRow]) -> list[Comparison]:
    """Compare every row that has another to compare with.

    Args:
        rows: to compare.
        results: of these rows and of those that they are compared with.
        paper: the rows of the paper's tables.
    """
    figures = {(row.table, row.number): row.paper for row in paper}
    found = []
    for row in rows:
        if row.against is None:
            continue
        ours, theirs = results.get(row.name, {}), results.get(row.against, {})
        difference, in_paper = {}, {}
        for kind in KINDS:
            difference[kind] = paired(_of_kind(ours, kind), _of_kind(theirs, kind))
            ours_there, theirs_there = (
                figures.get((row.table, number or 0), {}).get(kind) for number in (row.number, row.compared)
            )
            both = ours_there is not None and theirs_there is not None
            in_paper[kind] = round(float(ours_there) - float(theirs_there), 1) if both else None  # type: ignore[arg-type]
        found.append(Comparison(row, difference, in_paper))
    return found


def _of_kind(results: Mapping[int, dict], kind: str) -> dict[int, float]:
    return {seed: result[kind] for seed, result in results.items() if kind in result}


def markdown(rows: Sequence[Row], results: Results, comparisons: Sequence[Comparison]) -> str:
    """The table with its notes."""
    titles = {row.name: row.title for row in ROWS}
    compared = {comparison.row.name: comparison for comparison in comparisons}
    head = ['Table', 'row', 'mask AP', 'box AP', 'compared with']
    for kind in KINDS:
        head += [f'{kind}: difference', 'paper']
    lines = [[*head, 'RoIs'], ['---'] * (len(head) + 1)]
    for row in rows:
        found = results.get(row.name, {})
        cells = [str(row.table), row.title, *(_mean(found, kind) for kind in KINDS)]
        cells.append(titles[row.against] if row.against else '-')
        for kind in KINDS:
            comparison = compared.get(row.name)
            cells += [_difference(comparison.difference[kind]) if comparison else '-']
            cells += [_signed(comparison.paper[kind]) if comparison else '-']
        shares = ', '.join(f'{level} {share:.0%}' for level, share in level_shares(found).items())
        lines.append([*cells, shares or '-'])
    table = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    seeds = sorted({seed for found in results.values() for seed in found})
    return f'{table}\n\nSeeds: {", ".join(map(str, seeds)) or "none yet"}. {NOTES}\n'


def _mean(results: Mapping[int, dict], kind: str) -> str:
    values = _of_kind(results, kind).values()
    return f'{statistics.fmean(values):.1f}' if values else '-'


def _signed(value: float | None) -> str:
    return '-' if value is None else f'{value:+.1f}'.replace('-', '−')


def _difference(found: Interval | None) -> str:
    if found is None:
        return '-'
    if math.isinf(found.half):
        return f'{_signed(found.mean)}, one seed, no interval'
    text = f'{_signed(found.mean)} ± {found.half:.1f}'
    return text if found.resolved else f'{text}, {NOT_RESOLVED}'


def level_shares(results: Mapping[int, dict]) -> dict[str, float]:
    """The share of RoIs that went to each level in all trainings of a row; empty without RoIs."""
    counts: dict[str, int] = {}
    for result in results.values():
        for level, count in result['levels'].items():
            counts[level] = counts.get(level, 0) + count
    total = sum(counts.values())
    return {level: count / total for level, count in counts.items()} if total else {}


def draw(rows: Sequence[Row], results: Results, comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw the differences with their intervals beside the paper's, and the levels of the RoIs, as a PNG file."""
    shown = [row for row in rows if level_shares(results.get(row.name, {}))]
    height = 1.5 + 0.48 * max(len(comparisons), len(shown), 3)
    figure = Figure(figsize=(12.5, height), layout='constrained')
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    titles = {row.name: row.title for row in ROWS}
    names = [f'{c.row.title}\nagainst {titles[c.row.against]}' for c in comparisons if c.row.against]
    for axis, kind in zip(axes, KINDS, strict=False):
        _draw_differences(axis, kind, comparisons)
        axis.set_yticks(range(len(names)), names if axis is axes[0] else [''] * len(names), fontsize=8)
    _draw_levels(axes[2], shown, results)
    if comparisons:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc='outside lower left', ncols=3, fontsize=8.5)
    write_aside(path, partial(figure.savefig, dpi=DPI))


def _draw_differences(axes: Axes, kind: str, comparisons: Sequence[Comparison]) -> None:
    axes.axvline(0, color='#888', linewidth=1)
    for resolved in (True, False):
        points = [
            (place, found)
            for place, comparison in enumerate(comparisons)
            if (found := comparison.difference[kind]) is not None and found.resolved == resolved
        ]
        colour = RESOLVED_COLOUR if resolved else '#9a9a9a'
        label = 'mean and 95 % interval' if resolved else NOT_RESOLVED
        axes.errorbar(
            [found.mean for _, found in points],
            [place for place, _ in points],
            xerr=[0.0 if math.isinf(found.half) else found.half for _, found in points],
            fmt='o',
            color=colour,
            markersize=5,
            capsize=3,
            linewidth=1.5,
            label=label,
        )
    in_paper = [(place, value) for place, c in enumerate(comparisons) if (value := c.paper[kind]) is not None]
    axes.scatter(
        [value for _, value in in_paper],
        [place + 0.25 for place, _ in in_paper],
        marker='D',
        s=26,
        facecolors='white',
        edgecolors='black',
        linewidths=1,
        zorder=3,
        label="the paper's, on COCO",
    )
    axes.set_title(f'difference in {kind}', fontsize=10)
    axes.set_xlabel('points', fontsize=9)
    axes.set_ylim(max(len(comparisons), 1) - 0.4, -0.6)
    plain(axes)


def _draw_levels(axes: Axes, rows: Sequence[Row], results: Results) -> None:
    for place, row in enumerate(rows):
        left = 0.0
        for level, share in level_shares(results[row.name]).items():
            colour = LEVEL_COLOURS[int(level[1:]) - 3]
            axes.barh(place, share, left=left, height=0.72, color=colour)
            if share > 0.06:
                ink = 'white' if colour in LEVEL_COLOURS[:2] else '#222'
                text = f'{level}\n{share:.0%}'
                axes.text(left + share / 2, place, text, ha='center', va='center', fontsize=7, color=ink)
            left += share
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8)
    axes.set_title('levels of the RoIs in training', fontsize=10)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ['0', '50 %', '100 %'])
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    plain(axes)
    axes.grid(visible=False)


def levels_text(rows: Sequence[Row], results: Results) -> Iterator[str]:
    """Histograms of the RoIs' levels for a terminal, a line a level."""
    for row in rows:
        for level, share in level_shares(results.get(row.name, {})).items():
            yield f'{row.title:<24} {level} {share:6.1%} {"█" * round(40 * share)}'
