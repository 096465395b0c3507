"""Read configs, and build the runner that one describes, with errors as one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from centermask.engine.config_check import check_config, check_options
from centermask.engine.model_names import find_config
from centermask.utils.errors import InputError, config_errors, find_user_error


def load_config(
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    change: Callable[[Config], None] = lambda cfg: None,
) -> Config:
    """Read a config, merge ``--cfg-options`` into it and check it.

    Args:
        path: of the config, or a name of one as :func:`~centermask.engine.model_names.find_config` takes it.
        options: the ``--cfg-options``.
        change: changes the config before they are merged.

    Raises:
        InputError: there is none or it is not valid, an option names nothing, or a value can't be used.
    """
    path = find_config(path)
    if path.suffix not in ('.py', '.json', '.yaml', '.yml'):  # which MMEngine reads
        raise InputError(f'{path} is no config: give a model or a config, and this file as its checkpoint.')
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
    check_config(cfg)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config names, MMEngine's own where it names none.

    Raises:
        InputError: the config lacks something, or holds what can't be built.
    """
    with config_errors(cfg.filename, 'run'):
        return RUNNERS.build(cfg)
