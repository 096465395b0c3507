"""The report's curves and bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from centermask.report.drawing import plain
from centermask.report.history import History

BOX_COLOUR = '#c65d1e'
MASK_COLOUR = '#2563a8'
DPI = 110


def plot_losses(history: History, path: Path) -> None:
    """One panel for each loss and one for their sum, over iterations."""
    names = [*history.losses, 'loss']
    columns = 3
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(9, 2.4 * rows), layout='constrained')
    for position, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, columns, position)
        axes.plot(*history.curve(name), color='#333' if name == 'loss' else MASK_COLOUR, linewidth=1.4)
        axes.set_title('sum of all' if name == 'loss' else name, fontsize=10)
        axes.set_ylim(bottom=0)
        plain(axes)
        if position > len(names) - columns:
            axes.set_xlabel('iteration', fontsize=9)
    figure.savefig(path, dpi=DPI)


def plot_ap(curves: dict[str, tuple[list[int], list[float]]], path: Path) -> None:
    """AP at each validation during training: label -> iterations and values."""
    figure = Figure(figsize=(9, 3.2), layout='constrained')
    axes = figure.add_subplot()
    for (label, curve), colour in zip(curves.items(), (MASK_COLOUR, BOX_COLOUR), strict=False):
        axes.plot(*curve, marker='o', markersize=4, color=colour, label=label)
    axes.set_xlabel('iteration', fontsize=9)
    axes.set_ylabel('AP', fontsize=9)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)
    plain(axes)
    figure.savefig(path, dpi=DPI)


def plot_classes(classes: Sequence[str], bars: Mapping[str, Sequence[float]], path: Path) -> None:
    """Bars for each class: of ``'mask AP'`` and ``'box AP'``, or one of them."""
    figure = Figure(figsize=(9, 1 + 0.42 * len(classes)), layout='constrained')
    axes = figure.add_subplot()
    colours = {'mask AP': MASK_COLOUR, 'box AP': BOX_COLOUR}
    for i, (label, values) in enumerate(bars.items()):
        places = [row + 0.38 * (i - (len(bars) - 1) / 2) for row in range(len(classes))]
        axes.barh(places, values, height=0.36, color=colours[label], label=label)
        for place, value in zip(places, values, strict=True):
            axes.text(value + 0.006, place, f'{value:.2f}', va='center', fontsize=8, color='#444')
    axes.set_yticks(range(len(classes)), classes)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.05)
    figure.legend(frameon=False, loc='outside upper center', ncols=2)
    plain(axes)
    axes.grid(visible=False, axis='y')
    figure.savefig(path, dpi=DPI)
