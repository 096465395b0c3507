"""The paper's tables as Markdown and CSV, and the page of docs/ that holds them all."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from centermask.tables.index import LATENCY, NOT_MEASURED, TABLES, Row

OURS = ('params (M)', 'GFLOPs', 'ms', 'mask AP', 'box AP')

TITLE = """# The paper's tables

Made by `python tools/tables.py all --docs` from the entries of `configs/metafile.yml`, the one source of every figure
here. Every row is a config, but for two that carry the literature's figures.
"""
NOTES = f"""Columns marked "paper" hold the paper's figures: AP on COCO val2017 in Tables 1 to 4 and on test-dev in
Table 5 (YOLACT's are its authors'); a dash stands where there is none. Ours: parameters without those of BN, as the
paper counts them; operations (GFLOPs) of convolutions and matrix products, a multiplication and an addition being two,
for one image of the largest test size and as many RoIs as the config's test settings allow; ms of a picture
of 480×640 pixels, resized as in testing, with 50 detections. "{NOT_MEASURED}" is what nobody has measured here: an AP
of ours needs a training on COCO.

What the configs leave open, where the facts do: no ImageNet weights of VoVNetV1, + residual and + SE are published, so
these rows start from V2's without its attention; Mask R-CNN, RetinaMask and YOLACT are MMDetection's parts in their own
recipes, and comments in their configs name what differs from the original code bases."""


def cells(number: int, rows: Sequence[Row]) -> list[list[str]]:
    """Return a table's cells, the head first; figures that the paper leaves out are empty."""
    table = TABLES[number]
    head = [*table.names, *(f'paper: {name}' for name in table.figures), *(f'ours: {name}' for name in OURS), 'config']
    return [head] + [
        [
            *row.names.values(),
            *(str(row.paper.get(name, '')) for name in table.figures),
            *_ours(row),
            row.config or "the literature's",
        ]
        for row in rows
        if row.table == number
    ]


def _ours(row: Row) -> list[str]:
    if row.config is None:
        return [''] * len(OURS)
    figures: list[str] = []
    for key, unit in (('Parameters', 1e6), ('FLOPs', 1e9)):
        value = row.measured.get(key, NOT_MEASURED)
        figures.append(value if isinstance(value, str) else f'{value / unit:.1f}')
    latency = row.measured.get(LATENCY, NOT_MEASURED)
    figures.append(latency if isinstance(latency, str) else f'{latency[0]["value"]} ({latency[0]["hardware"]})')
    return figures + [str(row.measured.get(f'Own {kind} AP', NOT_MEASURED)) for kind in ('mask', 'box')]


def markdown(number: int, rows: Sequence[Row]) -> str:
    """Return a table as Markdown under its title."""
    head, *body = cells(number, rows)
    names = len(TABLES[number].names)
    lines = [head, ['---'] * names + ['---:'] * (len(head) - names - 1) + ['---']]
    lines += [[*(cell.replace('*', r'\*') or '–' for cell in row[:-1]), _code(row[-1])] for row in body]  # noqa: RUF001
    text = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    notes = _notes([row for row in rows if row.table == number])
    return f'**Table {number}**: {TABLES[number].title}.\n\n{text}\n{notes}'


def _notes(rows: Sequence[Row]) -> str:
    """Why counts of parameters are not the paper's, a paragraph for each reason."""
    reasons: dict[str, list[Row]] = {}
    for row in rows:
        if row.differs:
            reasons.setdefault(row.differs, []).append(row)
    return ''.join(
        f'\nParameters of {"; ".join(", ".join(row.names.values()) for row in rows)}: {reason}.\n'
        for reason, rows in reasons.items()
    )


def _code(config: str) -> str:
    return config if ' ' in config else f'`{config}`'


def as_csv(number: int, rows: Sequence[Row]) -> str:
    """Return a table as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator='\n').writerows(cells(number, rows))
    return file.getvalue()


def page(rows: Sequence[Row]) -> str:
    """Return docs/paper_tables.md."""
    return '\n'.join([TITLE, *(markdown(number, rows) for number in TABLES), NOTES, ''])
