"""Common parts of the command lines: options, a run's config and work folder, errors as one sentence."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config, DictAction
from torch import distributed

from centermask.engine.configs import load_config
from centermask.engine.schedule import fit_config
from centermask.utils.errors import InputError, find_user_error, one_line


class _Options(DictAction):
    """An argparse action for ``KEY=VALUE`` words; at a word without ``=`` MMEngine's ends in a traceback."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        for word in values:
            if '=' not in word:
                parser.error(f'{option_string} takes KEY=VALUE words and {word!r} has no "="')
        super().__call__(parser, namespace, values, option_string)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common."""
    parser.add_argument(
        '--data',
        type=non_empty,
        metavar='DIR',
        help="a folder of your own data instead of what the config names: images and annotations in COCO's format "
        "(train.json and val.json, or as COCO, Roboflow or CVAT lay them out), YOLO's polygons or mask images",
    )
    parser.add_argument(
        '--work-dir',
        type=non_empty,
        help='where logs and checkpoints go (default work_dirs/NAME_OF_THE_CONFIG, with --data followed by _DIR)',
    )
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started this process, if there are several',
    )
    # `mim train --launcher pytorch` passes it; the same number is in the environment.
    parser.add_argument('--local-rank', type=int, help=argparse.SUPPRESS)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        default={},
        metavar='KEY=VALUE',
        help='settings that replace those of the config: model.backbone.norm_eval=False param_scheduler.0.end=501 '
        'key="[a,b]" (no spaces within a value)',
    )


def non_empty(text: str) -> str:
    """Parse a name. An empty one, as of an unset shell variable, would count as an option left out."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f'{text!r} is empty')
    return text


def positive(text: str) -> int:
    """Parse an integer from 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is no integer from 1')
    return int(text)


def not_negative(text: str) -> int:
    """Parse an integer from 0, such as a seed of NumPy."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is no integer from 0')
    return int(text)


def fraction(text: str) -> float:
    """Parse a number from 0 to 1, such as a score."""
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f'{text!r} is no number from 0 to 1')


def load_run_config(args: argparse.Namespace, training: bool = False) -> Config:
    """Read the config of a run, merge own data and options into it, and make its work folder.

    Raises:
        InputError: one of these can't be used.
    """

    def set_up(cfg: Config) -> None:
        cfg.launcher = args.launcher
        folder = args.work_dir or args.cfg_options.get('work_dir') or (None if args.data else cfg.get('work_dir'))
        name = Path(cfg.filename).stem + (f'_{Path(args.data).resolve().name}' if args.data else '')
        cfg.work_dir = folder or os.path.join('work_dirs', name)
        require_writable(cfg.work_dir, '--work-dir')
        if args.data:
            fit_config(cfg, Path(args.data), Path(cfg.work_dir), args.cfg_options, training)

    cfg = load_config(args.config, args.cfg_options, set_up)
    cfg.work_dir = args.work_dir or cfg.work_dir
    return cfg


def require_writable(folder: str | Path, option: str) -> None:
    """Make a folder and check that files can be written there.

    Raises:
        InputError: they can't.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"The folder {folder} can't be written to ({error.strerror}): give another one by {option}."
        ) from error


def require_file(path: str, what: str) -> None:
    """Raise an :class:`InputError` if ``path`` is neither a file nor a URL, before a run's slow start."""
    if '://' not in str(path) and not os.path.isfile(os.path.expanduser(str(path))):  # a config may hold a number
        raise InputError(f"The {what} {path} doesn't exist: give the path of a file.")


def command_line() -> str:
    """Return what was typed to start this process: ``centermask train ...`` or ``tools/train.py ...``."""
    return f'{sys.argv[0]} {shlex.join(sys.argv[1:])}'


def run(command: Callable[[], None]) -> int:
    """Run a command line and return its exit code: 0, 1 after a RunError, 2 after an InputError, 130 after Ctrl-C.

    Both errors are printed as one sentence, also from a data loader's worker or from within another error.
    """
    try:
        command()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except Exception as error:
        known = find_user_error(error)
        if known is None:
            raise
        print(f'error: {one_line(known)}', file=sys.stderr)
        return known.exit_code
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return 0
