"""Which classes are taken for which, the background included."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

BACKGROUND = 'background'
MAX_PRINTED = 20
"""Classes up to which paper has room for the numbers; a larger matrix is printed as colours alone."""


def confusion_table(confusion: np.ndarray, classes: Sequence[str]) -> str:
    """Return the matrix (K + 1, K + 1) of :class:`centermask.report.errors.Errors` as a table.

    Objects are in rows, detections in columns. The darkness of a cell is its part of the row.
    """
    names = [escape(name) for name in (*classes, BACKGROUND)]
    parts = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    head = ''.join(f'<th scope="col"><span>{name}</span></th>' for name in names)
    rows = ''
    for row, name in enumerate(names):
        cells = ''.join(
            f'<td class="shade" style="--v:{part:.2f}" title="{name} as {names[column]}: {count}">{count}</td>'
            if count
            else '<td></td>'
            for column, (count, part) in enumerate(zip(confusion[row].tolist(), parts[row], strict=True))
        )
        rows += f'<tr><th scope="row">{name}</th>{cells}</tr>'
    size = ' large' if len(classes) > MAX_PRINTED else ''
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="confusion matrix">'
        f'<table class="matrix{size}"><thead><tr><th>object ↓ detection →</th>{head}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div>'
    )


def most_confused(confusion: np.ndarray, classes: Sequence[str], number: int) -> list[list[str]]:
    """Return rows about the most frequent pairs of two classes: object, detected as, how often, part of the objects."""
    between = confusion[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    objects = confusion[:-1].sum(1)
    pairs = [np.unravel_index(i, between.shape) for i in np.argsort(-between, axis=None, kind='stable')[:number]]
    return [
        [classes[a], classes[b], str(between[a, b]), f'{between[a, b] / objects[a]:.0%}']
        for a, b in pairs
        if between[a, b]
    ]
