"""Models by name: the config out of the package, the weights from where they were released."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from glob import escape
from pathlib import Path

from centermask.checkpoints.metafile import CONFIGS, released_models
from centermask.checkpoints.sources import fetch
from centermask.utils.errors import InputError


def find_config(name: str | Path) -> Path:
    """Return the path of a config.

    Args:
        name: a path, which is returned as it is; or the name of a config of the package, with or without ``.py``, or
            the beginning of one up to a ``_``. Of configs that differ in their schedule alone (``centermask_r50``)
            those with released weights count, and of these the longest schedule.

    Raises:
        InputError: there is no such file or config, or the beginning is that of several models.
    """
    path = Path(name)
    if path.is_file():
        return path
    stem = path.name.removesuffix('.py')
    configs = package_configs() if path.parent == Path() else {}
    if stem in configs:
        return configs[stem]
    begun = [found for found in configs if found.startswith(f'{stem}_')]
    if not begun:
        same = path.parent.glob(f'*/{escape(path.name)}') if path.suffix == '.py' else ()
        moved = next(filter(Path.is_file, same), None)  # to configs/paper/, baselines/ or demo/
        near = ', '.join(get_close_matches(stem, {*configs, *map(_model, configs)}, cutoff=0.5))
        hint = f'it is at {moved} now.' if moved else near and f'is one of {near} meant?'
        raise InputError(
            f"The config {path} doesn't exist: {hint or 'give the path of a file, or the name of a model.'}"
        )
    chosen = _longest([found for found in begun if found in released_models()] or begun)
    models = dict.fromkeys(map(_model, begun))
    several = models if len(models) > 1 else chosen
    if len(several) > 1:
        raise InputError(f'{path} is the beginning of several models: give one of {", ".join(several)}.')
    return configs[chosen[0]]


def released_weights(name: str | Path) -> str:
    """Return the path of a config's released checkpoint, which is fetched where it isn't in torch's cache yet.

    Args:
        name: of the config, as :func:`find_config` takes it.

    Raises:
        InputError: none was released, or it can't be fetched.
    """
    config = find_config(name)
    if config.stem not in released_models():
        raise InputError(f'No weights of {config.stem} were released: give a checkpoint.')
    return fetch(released_models()[config.stem].link)


def package_configs() -> dict[str, Path]:
    """Return the path of every config of the package by its name."""
    root = CONFIGS.resolve()  # a link in a checkout
    return {path.stem: path for path in sorted(root.rglob('*.py')) if '_base_' not in path.parts}


def _model(config: str) -> str:
    """Return a config's name without its schedule and data."""
    return re.split(r'_(fpn|coco|shapes|custom)', config)[0]


def _longest(configs: Iterable[str]) -> list[str]:
    """Return the configs of the longest schedule."""
    schedules = {config: int((re.search(r'_(\d+)x_', config) or '00')[1]) for config in configs}
    return [config for config, length in schedules.items() if length == max(schedules.values())]
