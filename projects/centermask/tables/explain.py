"""What a config is: the files that it inherits, and in what it differs from the first row of its table."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from centermask.engine.config_check import REGISTRIES
from centermask.engine.configs import load_config
from centermask.tables.index import TABLES, Row

# What a run reads of a config; the other variables are parts that files use to put these together.
_READ = (*inspect.signature(Runner).parameters, 'tta_model', 'tta_pipeline', 'runner_type')


class Words(NamedTuple):
    """What stands for a value that has no literal."""

    words: str

    def __repr__(self) -> str:
        return self.words


NOT_SET = Words('not set')


def explain(path: Path, configs: Path, rows: Sequence[Row]) -> str:
    """Return the chain of files of a config and its differences to the first row of each table that it stands in.

    Args:
        path: a config.
        configs: the folder of the configs of rows.
        rows: of all tables.

    Raises:
        InputError: the config is missing or can't be read.
    """
    config = load_config(path)
    lines = [*_chain(path)]
    own = [row for row in rows if path.resolve() == (configs / f'{row.config}.py').resolve()]
    if not own:
        lines += ['', "It stands in none of the paper's tables, so there is no first row to compare it with."]
    for row in own:
        first = next(other for other in rows if other.table == row.table and other.config)
        lines += [
            '',
            f'Table {row.table}, {TABLES[row.table].title}: row {row.number}, {", ".join(row.names.values())}',
        ]
        if row is first:
            lines.append('the first row of its table')
            continue
        other = load_config(configs / f'{first.config}.py')
        found = list(differences(config, other))
        lines += [f'{key}: {value!r} (first row: {theirs!r})' for key, value, theirs in found]
        lines += [] if found else ['the same as the first row']
    return '\n'.join(lines)


def _chain(path: Path, depth: int = 0) -> Iterator[str]:
    """The file and those that it inherits, each indented below what names it; another package's as ``mmdet::FILE``."""
    package, of_package, file = os.path.normpath(path).partition('/.mim/configs/')
    yield '  ' * depth + (f'{Path(package).name}::{file}' if of_package else os.path.relpath(path))
    for base in Config._get_base_files(str(path)):  # MMEngine's own reading of `_base_`, as the next
        yield from _chain(Path(Config._get_cfg_path(base, str(path))[0]), depth + 1)


def differences(config: Config, first: Config) -> Iterator[tuple[str, Any, Any]]:
    """Return keys, values and the first row's values where two configs mean different things.

    A setting that only one of the two names has in the other its class's default, if it has one. Of a part that only
    the first row has, its type is told, not its settings.
    """
    ours, theirs = config.to_dict(), first.to_dict()
    with DefaultScope.overwrite_default_scope('mmdet'):
        for key in [key for key in _READ if key in ours or key in theirs]:
            validation = key.replace('test_', 'val_')
            if key != validation and all(side.get(key) == side.get(validation) for side in (ours, theirs)):
                continue  # tested on what it is validated on: nothing new
            yield from _compare(key, ours.get(key, NOT_SET), theirs.get(key, NOT_SET))


def _compare(place: str, ours: Any, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    """Compare two values; of two that have parts, or where only ours has, part by part."""
    if ours == theirs or all(side in (NOT_SET, None) for side in (ours, theirs)) or place.endswith('._scope_'):
        return
    mine, others = _parts(ours), _parts(theirs)
    if not mine or not (others or theirs in (NOT_SET, None)):
        yield place, ours, _name(theirs) if others else theirs
        return
    resolved, resolved_others = {**_defaults(mine), **mine}, {**_defaults(others), **others}
    for key in {**mine, **others}:
        yield from _compare(f'{place}.{key}', resolved.get(key, NOT_SET), resolved_others.get(key, NOT_SET))


def _parts(value: Any) -> dict[str, Any]:
    """The entries of a dict, or by their number those of a list or tuple that holds dicts somewhere; else none."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple) and any(_parts(item) for item in value):
        return {str(i): item for i, item in enumerate(value)}
    return {}


def _name(part: Any) -> Words:
    """What a part is, without its settings."""
    return Words(f'{part.get("type", "dict")}(...)' if isinstance(part, dict) else '[...]')


def _defaults(part: dict[str, Any]) -> dict[str, Any]:
    """The default arguments of the class that a part names."""
    kind = part.get('type')
    owner = next(filter(None, (registry.get(kind) for registry in REGISTRIES)), None) if kind else None
    if not isinstance(owner, type):
        return {}
    defaults: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        if '__init__' in vars(base) and base is not object:
            for name, parameter in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
                if parameter.default is not parameter.empty:
                    defaults[name] = parameter.default
    return defaults
