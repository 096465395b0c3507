"""The rows of the paper's tables, read from ``configs/metafile.yml``, and measured figures written back into it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mmengine

from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError

NOT_MEASURED = 'not measured'
LATENCY = 'inference time (ms/im)'  # the metafile's key, as mim names it

_BY_SIZE = tuple(f'{kind} AP{size}' for kind in ('mask', 'box') for size in ('', ' S', ' M', ' L'))


class Table(NamedTuple):
    """A table of the paper: its title, number of rows, naming columns and columns of figures."""

    title: str
    rows: int
    names: tuple[str, ...]
    figures: tuple[str, ...]


TABLES = {
    1: Table('the parts of CenterMask, ResNet-50', 5, ('Component',), ('mask AP', 'box AP', 'ms (Titan Xp)')),
    2: Table('pyramid levels that RoIs are pooled from, ResNet-50', 4, ('Levels',), ('mask AP', 'box AP')),
    3: Table('backbones', 14, ('Backbone',), ('Params (M)', *_BY_SIZE, 'ms (Titan Xp)')),
    4: Table(
        'from VoVNet to VoVNetV2', 12, ('Backbone', 'Variant'), ('Params (M)', 'mask AP', 'box AP', 'ms (Titan Xp)')
    ),
    5: Table('other methods', 18, ('Method', 'Backbone'), ('Epochs', *_BY_SIZE, 'ms', 'FPS', 'GPU')),
}


class Row(NamedTuple):
    """A row of one of the paper's tables.

    Attributes:
        table, number: from 1, in the paper's order.
        names: what the row is called, by column.
        paper: the paper's figures by column, without those that it leaves out.
        config: path from the repository's root.
        measured: metadata of the entry.
        differs: why the number of parameters is not the paper's, or None.
        note: what is to be known of the paper's figures, or None.
    """

    table: int
    number: int
    names: dict[str, str]
    paper: dict[str, float | str]
    config: str
    measured: dict[str, Any]
    differs: str | None
    note: str | None

    def __str__(self) -> str:
        return f'table {self.table}, row {self.number} ({", ".join(self.names.values())})'


def read_metafile(path: Path) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of all tables in the paper's order, and the config of each model by its name.

    Raises:
        InputError: the file is missing, isn't YAML, or a row in it lacks a key.
    """
    try:
        metafile = mmengine.load(path)
        rows = [
            Row(
                table=row['Table'],
                number=row['Row'],
                names={name: row[name] for name in TABLES[row['Table']].names},
                paper=row['Paper'],
                config=entry['Config'],
                measured=entry['Metadata'],
                differs=row.get('Differs'),
                note=row.get('Note'),
            )
            for entry in metafile['Models']
            for row in entry.get('Rows', ())
        ]
        configs = {Path(model['Config']).stem: model['Config'] for model in metafile['Models']}
    except Exception as error:  # YAML has errors of its own
        raise InputError(f"The metafile {path} can't be read, {type(error).__name__}: {error}. Restore it.") from error
    return sorted(rows, key=lambda row: (row.table, row.number)), configs


def write_figures(path: Path, name: str, figures: Mapping[str, str]) -> None:
    """Replace figures of one model; every other line of the file stays as it is.

    Args:
        path: of the metafile.
        name: of the model.
        figures: YAML text by key of the model's metadata.

    Raises:
        InputError: there is no such model, or its metadata lack a key.
    """
    text = path.read_text(encoding='utf-8')
    entry = re.search(rf'^  - Name: {re.escape(name)}\n(?:    .*\n|\n)*', text, re.MULTILINE)
    if entry is None:
        raise InputError(f'{path} has no model {name}: add an entry of this name.')
    changed = entry.group()
    for key, value in figures.items():
        line = re.compile(rf'^      {re.escape(key)}: .*$', re.MULTILINE)
        if not line.search(changed):
            raise InputError(f'{path}: the metadata of {name} have no {key}: add the line "{key}: {NOT_MEASURED}".')
        changed = line.sub(f'      {key}: {value}'.replace('\\', r'\\'), changed)
    atomic_write_text(path, text[: entry.start()] + changed + text[entry.end() :])
