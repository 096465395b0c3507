"""The style that the report's curves have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from centermask.structures.fonts import DEFAULT, drawable_names, find_font
from centermask.structures.visualizer import distinct_colours

MAX_NAMED = 12
"""Classes that have a colour and a name in a plot; of more, each is a grey line."""
UNNAMED = 'a class'


def blank_figure(number: int) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with plots beside each other."""
    figure = Figure(figsize=(10, 3.8), layout='constrained')
    return figure, figure.subplots(1, number, squeeze=False)[0]


def class_style(label: int, classes: Sequence[str]) -> dict:
    """Return how the line of a class looks."""
    if len(classes) > MAX_NAMED:
        return dict(color='#888888', linewidth=0.6, alpha=0.5, label=UNNAMED)
    red, green, blue = distinct_colours(len(classes))[label]
    name = drawable_names(tuple(classes))[label]
    return dict(color=(red / 255, green / 255, blue / 255), linewidth=1.2, label=f' {name}'.replace('$', r'\$'))


def finish(axes: Axes, title: str, xlabel: str, ylabel: str = '', legend: bool = True) -> None:
    """Set the words of a plot whose axes go from 0 to 1."""
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color='#e6e6e6')
    if legend and axes.lines:
        named = {name: line for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}  # each once
        for text in axes.legend(named.values(), named.keys(), frameon=False, fontsize=7).get_texts():
            text.set_fontproperties(FontProperties(fname=find_font(text.get_text()) or DEFAULT, size=7))


def save(figure: Figure, path: Path) -> Path:
    """Write a figure and return its path."""
    figure.savefig(path, dpi=130)
    return path
