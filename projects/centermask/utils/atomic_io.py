"""Output folders and files that appear when they are complete, folders never in place of something else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from centermask.utils.errors import InputError, RunError


@contextmanager
def atomic_folder(out: Path, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A new, empty folder beside ``out`` that takes its place when the block ends without an error.

    Args:
        out: the folder to write; its parents are made.
        is_ours: whether a folder that stands there already was made by the same writer, and so may be replaced.

    Raises:
        InputError: ``out`` holds something else, or its parent can't be written.
        RunError: the operating system ends the block.
    """
    if out.exists() and not (out.is_dir() and (is_ours(out) or not any(out.iterdir()))):
        raise InputError(f'{out} exists and was not made by this command: name another folder or remove it.')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=out.parent, prefix=f'{out.name}.part-')
    except OSError as error:
        raise InputError(f'{out} can not be written ({error.strerror or error}): name a folder that can.') from error
    with place as aside:
        try:
            # The folder inside has ordinary permissions; a temporary one is its owner's alone.
            new = Path(aside) / out.name
            new.mkdir()
            yield new
            if out.exists():
                out.rename(Path(aside) / 'replaced')
            new.rename(out)
        except OSError as error:  # maybe of a file that the block reads
            file = f', {error.filename}' if error.filename else ''
            raise RunError(
                f'{out} is not written ({error.strerror or error}{file}): mend that and run the same command again.'
            ) from error


TMP_PREFIX = '.part-'
"""How the names of files begin that aren't complete."""


def write_synced(path: Path, write: Callable[[Path], object]) -> None:
    """:func:`atomic_write` for what must outlast a power failure: the file is on the disk before it is renamed.

    Raises:
        RunError: it can't be written to its end.
    """

    def write_and_sync(aside: Path) -> None:
        write(aside)
        _sync(aside)

    atomic_write(path, write_and_sync)
    with suppress(OSError):  # not every file system can do that with a folder
        _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def aside_of(path: Path) -> Path:
    """Return the name, of this process and of the same format, under which a file is written before it is renamed."""
    return path.with_name(f'{TMP_PREFIX}{path.stem}-{os.getpid()}{path.suffix}')


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file, in a folder that may be missing, under a name of this process; rename it when it is complete.

    Raises:
        RunError: it can't be written to its end.
    """
    aside = aside_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:  # torch.save's is a RuntimeError, which doesn't say why
        why = getattr(error, 'strerror', None) or 'the disk may be full'
        raise RunError(f"{path} can't be written to its end ({why}): make room there or name another place.") from error
    finally:
        with suppress(OSError):  # there may be no folder
            aside.unlink()


def atomic_write_text(path: Path, text: str) -> None:
    """:func:`atomic_write` of a text, in UTF-8.

    Raises:
        RunError: it can't be written to its end.
    """
    atomic_write(path, lambda aside: aside.write_text(text, encoding='utf-8'))
