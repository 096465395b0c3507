"""Read configs, and build the runner that one describes, with errors as one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from centermask.engine.config_check import check_config, check_options
from centermask.utils.errors import InputError, config_errors, find_user_error


def load_config(
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    change: Callable[[Config], None] = lambda cfg: None,
) -> Config:
    """Read a config, merge ``--cfg-options`` into it and check it.

    Args:
        path: of the config.
        options: the ``--cfg-options``.
        change: changes the config before they are merged.

    Raises:
        InputError: the file is missing or no valid config, an option names nothing, or a value can't be used.
    """
    if not os.path.isfile(path):
        moved = next(Path(path).parent.glob(f'*/{Path(path).name}'), None)  # to configs/paper/, baselines/ or demo/
        hint = f'it is at {moved} now.' if moved else 'give the path of a file under configs/ or your own.'
        raise InputError(f"The config {path} doesn't exist: {hint}")
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
