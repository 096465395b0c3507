"""Curves of a training, from MMEngine's ``scalars.json``."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from centermask.report.plots import blank_figure, save
from centermask.utils.errors import InputError

Curves = dict[str, dict[int, float]]
"""Values of each scalar by iteration."""


def read_curves(work_dir: Path) -> Curves:
    """Read the scalars of every start of a run; a later start replaces the iterations that it did again.

    Raises:
        InputError: the folder holds no scalars.
    """
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))  # the folders' names are the times of the starts
    if not files:
        raise InputError(f'{work_dir} holds no */vis_data/scalars.json: name the work dir of a training run.')
    curves: Curves = defaultdict(dict)
    for path in files:
        begun, last = False, 0
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # the run was stopped while it wrote this line
                continue
            if not isinstance(record, dict) or 'step' not in record:
                continue
            step = record.pop('step')
            if 'loss' in record:
                last = step
            else:
                step = step or last  # MMEngine counts validations in epochs: 0 in a training by iterations
            if 'loss' in record and not begun:
                begun = True
                for curve in curves.values():
                    for later in [old for old in curve if old >= step]:
                        del curve[later]
            for name, value in record.items():
                curves[name][step] = value
    return curves


def draw_curves(curves: Curves, out: Path) -> Path:
    """Draw the losses on the left and, where there were validations, their AP on the right."""
    losses = [name for name in curves if name.startswith('loss')]
    precisions = [name for name in curves if name.endswith('_mAP')]
    plots = [(losses, 'loss')] + ([(precisions, 'AP at validation')] if precisions else [])
    figure, panels = blank_figure(len(plots))
    for axes, (names, title) in zip(panels, plots, strict=True):
        for name in names:
            axes.plot([*curves[name]], [*curves[name].values()], label=name, marker='o' if 'AP' in name else None)
        axes.set(title=title, xlabel='iteration', ylim=(0, 1 if 'AP' in title else None))
        axes.grid(color='#e6e6e6')
        axes.legend(frameon=False, fontsize=8)
    return save(figure, out)
