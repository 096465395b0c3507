"""The checkpoint that a training resumes from: the newest that is whole."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from centermask.errors import InputError

_SAVED = re.compile(r'(?:iter|epoch)_(\d+)\.pth')


class Newest(NamedTuple):
    """What was found: the newest whole checkpoint, None if there is none at all, and newer ones that aren't whole."""

    path: Path | None
    passed_over: list[Path]


def is_whole(path: Path) -> bool:
    """Whether a file that torch saved is complete and each of its parts has the checksum that it was saved with."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        return False


def find_newest(work_dir: Path) -> Newest:
    """Look through the checkpoints of a work folder; if it has none, of the folder that ``last_checkpoint`` names.

    Raises:
        InputError: there are checkpoints, and not one is whole.
    """
    found = _saved_in(work_dir)
    pointer = work_dir / 'last_checkpoint'
    if not found and pointer.is_file():
        found = _saved_in(Path(pointer.read_text(errors='replace').strip()).parent)
    passed_over: list[Path] = []
    for path in found:
        if is_whole(path):
            return Newest(path, passed_over)
        passed_over.append(path)
    if passed_over:
        raise InputError(
            f'None of the checkpoints in {work_dir} is whole ({", ".join(path.name for path in passed_over)}): '
            'name one by --resume CHECKPOINT, or remove them to begin anew.'
        )
    return Newest(None, [])


def _saved_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    if not folder.is_dir():
        return []
    found = [(path, name) for path in folder.iterdir() if (name := _SAVED.fullmatch(path.name))]
    return [path for path, _ in sorted(found, key=lambda item: (-item[0].stat().st_mtime_ns, -int(item[1][1])))]
