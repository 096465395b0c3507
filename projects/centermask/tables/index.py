"""The index of models, configs/metafile.yml, read as the rows of the paper's tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError

METAFILE = 'metafile.yml'
NOT_MEASURED = 'not measured'
LATENCY = 'inference time (ms/im)'  # mim's name of it

_BY_SIZE = tuple(f'{kind} AP{size}' for kind in ('mask', 'box') for size in ('', ' S', ' M', ' L'))


class Table(NamedTuple):
    """A table of the paper."""

    title: str
    rows: int
    names: tuple[str, ...]  # columns that tell rows apart
    figures: tuple[str, ...]  # columns of the paper's figures


TABLES = {
    1: Table('the parts of CenterMask, ResNet-50', 5, ('Component',), ('mask AP', 'box AP', 'ms (Titan Xp)')),
    2: Table('pyramid levels that RoIs are pooled from, ResNet-50', 4, ('Levels',), ('mask AP', 'box AP')),
    3: Table('backbones', 14, ('Backbone',), ('Params (M)', *_BY_SIZE, 'ms (Titan Xp)')),
    4: Table(
        'from VoVNet to VoVNetV2', 12, ('Backbone', 'Variant'), ('Params (M)', 'mask AP', 'box AP', 'ms (Titan Xp)')
    ),
    5: Table('other methods', 18, ('Method', 'Backbone'), ('Epochs', *_BY_SIZE, 'ms', 'FPS', 'GPU')),
}


# The methods of which the paper has the literature's figures, and which are no config here.
LITERATURE = frozenset({'ShapeMask', 'TensorMask'})


class Row(NamedTuple):
    """A row of one of the paper's tables."""

    table: int
    number: int  # from 1, in the paper's order
    names: dict[str, str]
    paper: dict[str, float | str]  # the paper's figures by column, without those that it leaves out
    config: str | None  # file name without .py; None where the figures are the literature's
    measured: dict[str, Any]  # the entry's metadata
    differs: str | None  # why the count of parameters is not the paper's

    def __str__(self) -> str:
        return f'table {self.table}, row {self.number} ({", ".join(self.names.values())})'


class Index(NamedTuple):
    """What configs/metafile.yml holds."""

    rows: list[Row]  # of all tables, in the paper's order
    configs: list[str]  # file names without .py, those of the rows first


def read_index(configs: Path) -> Index:
    """Read the index in the folder of configs.

    Raises:
        InputError: it is missing, isn't YAML, or a row in it lacks a key.
    """
    path = configs / METAFILE
    try:
        index = yaml.safe_load(path.read_text(encoding='utf-8'))
        entries = [*index['Collections'], *index['Models']]
        rows = [_read_row(entry, row) for entry in entries for row in entry.get('Rows', ())]
        names = [Path(model['Config']).stem for model in index['Models']]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        missing = isinstance(error, KeyError)
        what = f'lacks the key {error}' if missing else f"can't be read ({' '.join(str(error).split())})"
        raise InputError(f'The index {path} {what}: restore the file.') from error
    rows.sort(key=lambda row: (row.table, row.number))
    return Index(rows, list(dict.fromkeys([row.config for row in rows if row.config] + names)))


def _read_row(entry: Mapping[str, Any], row: Mapping[str, Any]) -> Row:
    table = TABLES[row['Table']]
    return Row(
        table=row['Table'],
        number=row['Row'],
        names={name: row[name] for name in table.names},
        paper=row['Paper'],
        config=Path(entry['Config']).stem if 'Config' in entry else None,
        measured=entry.get('Metadata', {}),
        differs=row.get('Differs'),
    )


def write_figures(configs: Path, name: str, figures: Mapping[str, str]) -> None:
    """Replace figures of one entry of the index; every other line of the file stays as it is.

    Args:
        configs: the folder of configs with metafile.yml.
        name: the entry's name.
        figures: YAML text by key of the entry's metadata.

    Raises:
        InputError: the index has no such entry, or the entry lacks the key.
    """
    path = configs / METAFILE
    text = path.read_text(encoding='utf-8')
    entry = re.search(rf'^  - Name: {re.escape(name)}\n(?:    .*\n|\n)*', text, re.MULTILINE)
    if entry is None:
        raise InputError(f'{path} has no model {name}: add an entry of this name.')
    changed = entry.group()
    for key, value in figures.items():
        line = re.compile(rf'^      {re.escape(key)}: .*$', re.MULTILINE)
        if not line.search(changed):
            raise InputError(f'{path}: the metadata of {name} has no {key}: add the line "{key}: {NOT_MEASURED}".')
        changed = line.sub(lambda match, new=f'      {key}: {value}': new, changed)  # type: ignore[misc]
    new_text = text[: entry.start()] + changed + text[entry.end() :]
    atomic_write_text(path, new_text)
