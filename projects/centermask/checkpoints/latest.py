"""The checkpoint that a training resumes from: the newest that is whole."""

from __future__ import annotations

import re
import zipfile
from contextlib import suppress
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from centermask.utils.errors import InputError

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


def numbered(template: str) -> re.Pattern:
    """What the names of a template with one ``{}`` look like, with the number as a group.

    Raises:
        ValueError: the template has none, or it says something else than a whole number in decimals.
    """
    parts = [*Formatter().parse(template)]
    if sum(field is not None for _, field, _, _ in parts) == 1:
        names = ''.join(re.escape(text) + ('' if field is None else r'(\d+)') for text, field, _, _ in parts)
        with suppress(LookupError, ValueError, AttributeError):
            if all((name := re.fullmatch(names, template.format(n))) and int(name[1]) == n for n in (3, 1234567)):
                return re.compile(names)
    raise ValueError(f'filename_tmpl is a name with one {{}} for the number of iterations, not {template!r}')


def find_newest(work_dir: Path, template: str = 'iter_{}.pth') -> Newest:
    """Look through the checkpoints of a work folder; if it has none, of the folder that ``last_checkpoint`` names.

    Args:
        work_dir: the folder.
        template: of their names, beside which MMEngine's own are known, and the one that ``last_checkpoint`` has.

    Raises:
        InputError: there are checkpoints, and not one is whole.
    """
    names = [_SAVED, numbered(template)]
    pointer = work_dir / 'last_checkpoint'
    named = Path(pointer.read_text(errors='replace').strip() if pointer.is_file() else '')
    found = _saved_in(work_dir, named, names)
    if not found and pointer.is_file():
        found = _saved_in(named.parent, named, names)
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


def _saved_in(folder: Path, named: Path, names: list[re.Pattern]) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = next(filter(None, (name.fullmatch(path.name) for name in names)), None)
        if match or path.name == named.name:
            found.append((-path.stat().st_mtime_ns, -int(match[1]) if match else 0, path))
    return [path for *_, path in sorted(found)]
