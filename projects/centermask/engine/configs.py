"""Read configs, and build what they describe, with errors as one sentence."""

from __future__ import annotations

import linecache
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from centermask.engine.options import check_options
from centermask.utils.errors import InputError, find_user_error

# What a wrong value in a config raises where something is built of it.
_OF_A_CONFIG = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError),
)


def load_config(
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    change: Callable[[Config], None] = lambda cfg: None,
) -> Config:
    """Read a config and merge ``--cfg-options`` into it.

    Args:
        path: of the config.
        options: the ``--cfg-options``.
        change: what to change in the config before they are merged.

    Raises:
        InputError: the file is missing or no valid config, or an option names nothing.
    """
    if not os.path.isfile(path):
        raise InputError(f"The config {path} doesn't exist: give the path of a file under configs/ or your own.")
    _require_end(path)
    try:
        cfg = Config.fromfile(path)
    except (Exception, SystemExit) as error:  # a config is a program: it may fail in any way
        known = find_user_error(error)  # a config may read its data's classes
        why = ' '.join(str(error).split()).rstrip('.')
        raise known or InputError(f"The config {path} can't be read, {type(error).__name__}: {why}.") from error
    change(cfg)
    options = dict(options or {})
    check_options(cfg, options)
    cfg.merge_from_dict(options)
    if not isinstance(cfg.get('model', {}), dict):
        raise InputError(f"The config {path} can't be used: model is a dict, not {cfg.model!r}.")
    return cfg


def _require_end(path: str | Path, heirs: tuple[str, ...] = ()) -> None:
    """Raise an :class:`InputError` where a config inherits itself: MMEngine goes around until Python has enough."""
    if os.path.realpath(path) in heirs:
        raise InputError(f"The config {heirs[0]} can't be read, {path} inherits itself: take that out of its _base_.")
    bases: list = []
    with suppress(Exception):  # of which MMEngine speaks
        bases = Config._get_base_files(path)
    for base in bases:
        if '::' not in base:
            _require_end(os.path.join(os.path.dirname(path), base), (*heirs, os.path.realpath(path)))


@contextmanager
def config_errors(source: str | None, part: str = 'model') -> Iterator[None]:
    """Turn what is raised where a part of a config is built into one sentence.

    Args:
        source: the config's file.
        part: what is built.

    Raises:
        InputError: a class, an argument or a value in the config doesn't exist.
    """
    try:
        yield
    except _OF_A_CONFIG as error:
        if known := find_user_error(error):
            raise known from error
        why = ' '.join(str(error.args[0] if error.args else _wordless(error)).split())
        why = re.sub(r'( is not in the \S+ registry)\..*', r'\1', why).rstrip('.')
        raise InputError(f"The {part} of {source or 'the config'} can't be built: {why}.") from error


def _wordless(error: BaseException) -> str:
    """Words for an error without any: the line that raised it, which names what it is about, and the class there."""
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    text = linecache.getline(frame.f_code.co_filename, line).strip()
    return f'{type(error).__name__} of {type(frame.f_locals.get("self")).__name__} at "{text}"'


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config names, MMEngine's own where it names none.

    Raises:
        InputError: the config lacks something, or holds what can't be built.
    """
    with config_errors(cfg.filename, 'run'):
        return RUNNERS.build(cfg)
