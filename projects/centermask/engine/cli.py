"""What the command lines share: options, the run's config, its folder, and errors as one sentence."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.config import Config, DictAction
from torch import distributed

from centermask.engine.configs import load_config
from centermask.engine.schedule import fit_config
from centermask.engine.value_types import check_config
from centermask.utils.errors import InputError, RunError, find_user_error, one_line

_made: list[Path] = []  # folders that this process has made


class _Options(DictAction):
    """``KEY=VALUE`` words, where MMEngine's own action ends in a traceback at a word without ``=``."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        for word in values:
            if '=' not in word:
                parser.error(f'{option_string} takes KEY=VALUE words and {word!r} has no "="')
        super().__call__(parser, namespace, values, option_string)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what training and testing have in common."""
    parser.add_argument(
        '--data',
        type=named,
        metavar='DIR',
        help='a folder of your own data instead of what the config names: train.json and val.json, '
        "annotations/instances_{train,val}*.json, or one JSON file in COCO's format, and the images",
    )
    parser.add_argument(
        '--work-dir',
        type=named,
        help='where logs and checkpoints go (default work_dirs/NAME_OF_THE_CONFIG, with --data followed by _DIR)',
    )
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started this process, where there are several',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


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


def named(text: str) -> str:
    """A name as argparse takes it from a command line: a shell's empty variable would count as if it weren't there."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f'{text!r} names nothing')
    return text


def positive(text: str) -> int:
    """A whole number from 1 on, as argparse takes it from a command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is no number from 1 on')
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1, as argparse takes it from a command line."""
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f'{text!r} is no number from 0 to 1')


def load_run_config(args: argparse.Namespace, training: bool = False) -> Config:
    """Read the config of a run: own data and options merged, launcher and work folder set, the folder checked.

    Raises:
        InputError: one of these can't be used.
    """

    def place(cfg: Config) -> None:
        cfg.launcher = args.launcher
        folder = args.work_dir or args.cfg_options.get('work_dir') or (None if args.data else cfg.get('work_dir'))
        name = Path(args.config).stem + (f'_{Path(args.data).absolute().name}' if args.data else '')
        cfg.work_dir = folder or os.path.join('work_dirs', name)
        require_writable(cfg.work_dir, '--work-dir')
        if args.data:
            fit_config(cfg, Path(args.data), Path(cfg.work_dir), args.cfg_options, training)

    cfg = load_config(args.config, args.cfg_options, place)
    check_config(cfg)  # the runner does too, for MMDetection's own scripts; training's data are looked at before it
    cfg.work_dir = args.work_dir or cfg.work_dir
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return cfg


def require_writable(folder: str | Path, option: str) -> None:
    """Make a folder and check that files can be written there. :func:`run` takes it back if an input can't be used.

    Raises:
        InputError: they can't.
    """
    try:
        if not os.path.isdir(folder):
            path = Path(folder).absolute()
            _made.extend([p for p in reversed([path, *path.parents]) if not p.exists()][:1])  # none where it is a file
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"The folder {folder} can't be written to ({error.strerror}): give another one by {option}."
        ) from error


def require_file(path: str, what: str) -> None:
    """Raise an :class:`InputError` where ``path`` is neither a file nor a URL, before a run's slow beginning."""
    if '://' not in str(path) and not os.path.isfile(os.path.expanduser(str(path))):  # a config may hold a number
        raise InputError(f"The {what} {path} doesn't exist: give the path of a file.")


def run(command: Callable[[], None]) -> int:
    """Run a command line to its end and return its exit code.

    What the package raises for the user to read becomes one sentence, also from a worker of a data loader or from
    within another error.
    """
    _made.clear()
    try:
        command()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except Exception as error:
        known = find_user_error(error) or _disk_full(error)
        if known is None:
            raise
        if isinstance(known, InputError):
            _take_back()
        print(f'error: {one_line(known)}', file=sys.stderr)
        return known.exit_code
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return 0


def _take_back() -> None:
    """Remove folders made for what was then never done: nothing but the beginning of a log is in them."""
    for folder in _made:
        begun = (f for f in folder.rglob('*') if f.suffix == '.pth' or (f.name == 'scalars.json' and f.stat().st_size))
        if not any(begun):
            shutil.rmtree(folder, ignore_errors=True)


def _disk_full(error: Exception) -> RunError | None:
    """A sentence for what the system says where a log or another file can't grow."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        name = error.filename or 'A file'
        return RunError(f"{name} can't be written ({error.strerror}): make room there or name another place.")
    return None


@contextmanager
def ends_like_ctrl_c(said: str) -> Iterator[None]:
    """For commands that start trainings: SIGTERM and SIGHUP raise KeyboardInterrupt within, so that these end too.

    Args:
        said: the sentence of the error.

    Raises:
        RunError: when interrupted.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    heard = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]  # as under nohup
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    except KeyboardInterrupt:
        raise RunError(said) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
