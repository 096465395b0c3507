"""What the command lines share: options, the config, checks before a run, and errors as one sentence."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import distributed

from centermask.engine.known_types import check_types
from centermask.engine.options import check_options
from centermask.engine.own_config import fit_config
from centermask.engine.value_types import check_values
from centermask.errors import InputError, RunError, find_known, sentence

_made: list[Path] = []  # folders that this process has made

# What a wrong value in a config raises where something is built of it.
_OF_A_CONFIG = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError),
)


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


def load_config(path: str, options: dict, change: Callable[[Config], None] = lambda cfg: None) -> Config:
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
        known = find_known(error)  # a config may read its data's classes
        why = ' '.join(str(error).split()).rstrip('.')
        raise known or InputError(f"The config {path} can't be read, {type(error).__name__}: {why}.") from error
    change(cfg)
    check_options(cfg, options)
    cfg.merge_from_dict(options)
    if not isinstance(cfg.get('model', {}), dict):
        raise InputError(f"The config {path} can't be used: model is a dict, not {cfg.model!r}.")
    return cfg


def _require_end(path: str, heirs: tuple[str, ...] = ()) -> None:
    """Raise an :class:`InputError` where a config inherits itself: MMEngine goes around until Python has enough."""
    if os.path.realpath(path) in heirs:
        raise InputError(f"The config {heirs[0]} can't be read, {path} inherits itself: take that out of its _base_.")
    bases: list = []
    with suppress(Exception):  # of which MMEngine speaks
        bases = Config._get_base_files(path)
    for base in bases:
        if '::' not in base:
            _require_end(os.path.join(os.path.dirname(path), base), (*heirs, os.path.realpath(path)))


def load_run_config(args: argparse.Namespace, training: bool = False) -> Config:
    """Read the config of a run: own data and options merged, launcher and work folder set, the folder checked.

    Raises:
        InputError: one of these can't be used.
    """

    def place(cfg: Config) -> None:
        cfg.launcher = args.launcher
        named = args.work_dir or args.cfg_options.get('work_dir') or (None if args.data else cfg.get('work_dir'))
        name = Path(args.config).stem + (f'_{Path(args.data).absolute().name}' if args.data else '')
        cfg.work_dir = named or os.path.join('work_dirs', name)
        require_writable(cfg.work_dir, '--work-dir')
        if args.data:
            fit_config(cfg, Path(args.data), Path(cfg.work_dir), args.cfg_options, training)

    cfg = load_config(args.config, args.cfg_options, place)
    check_types(cfg)  # the runner does too, for MMDetection's own scripts; training's data are looked at before it
    check_values(cfg)
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


@contextmanager
def explained_model_errors(source: str | None, part: str = 'model') -> Iterator[None]:
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
        if known := find_known(error):
            raise known from error
        why = ' '.join(str(error.args[0] if error.args else type(error).__name__).split())
        why = re.sub(r'( is not in the \S+ registry)\..*', r'\1', why).rstrip('.')
        raise InputError(f"The {part} of {source or 'the config'} can't be built: {why}.") from error


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config names, MMEngine's own where it names none.

    Raises:
        InputError: the config lacks something, or holds what can't be built.
    """
    with explained_model_errors(cfg.filename, 'run'):
        return RUNNERS.build(cfg)


def run(command: Callable[[], None]) -> int:
    """Run a command line to its end and return its exit code.

    What the package raises for the user to read becomes one sentence, also from a worker of a data loader or from
    within another error. Where torchrun started this process the sentence, or the traceback of an error that nobody
    foresaw, goes to torchrun's error file, so that of N processes' reports one is shown.
    """
    _made.clear()
    try:
        command()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except Exception as error:
        known = find_known(error) or _disk_full(error)
        if isinstance(known, InputError):
            _take_back()
        report = os.environ.get('TORCHELASTIC_ERROR_FILE')
        if known is None and report is None:
            raise
        text = sentence(known) if known else traceback.format_exc()
        code = known.exit_code if known else 1
        if report is None:
            print(f'error: {text}', file=sys.stderr)
        else:
            content = {'message': text, 'timestamp': int(time.time()), 'foreseen': known is not None}
            Path(report).write_text(json.dumps(content))
        return code
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
def ends_like_ctrl_c(sentence: str) -> Iterator[None]:
    """For commands that start trainings: SIGTERM and SIGHUP raise KeyboardInterrupt within, so that these end too.

    Args:
        sentence: what is said then.

    Raises:
        RunError: with the sentence, when interrupted.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    heard = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]  # as under nohup
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    except KeyboardInterrupt:
        raise RunError(sentence) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
