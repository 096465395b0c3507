"""The checkpoint that a training resumes from: the latest that is intact."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from mmengine.runner import find_latest_checkpoint

from centermask.utils.errors import InputError


def is_intact(path: Path) -> bool:
    """Return whether a file that torch saved is complete and all of its parts have their checksums."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        return False


def filename_pattern(filename_tmpl: str) -> str:
    """Return the glob pattern of the checkpoints that a ``CheckpointHook`` names by a template.

    Raises:
        ValueError: the template hasn't one ``{}`` for the number, so that all checkpoints would have one name.
    """
    pattern, numbers = re.subn(r'\{(:\w*)?\}', '*', filename_tmpl)
    if numbers != 1 or '{' in pattern:
        raise ValueError(f'filename_tmpl is a name with one {{}} for the number of iterations, not {filename_tmpl!r}')
    return pattern


def find_latest(work_dir: Path, filename_tmpl: str = 'iter_{}.pth') -> tuple[Path | None, list[Path]]:
    """Return the latest intact checkpoint of a work folder, None if there is no checkpoint, and later damaged ones.

    Args:
        work_dir: the folder, which may have been moved.
        filename_tmpl: of the checkpoints' names, as ``CheckpointHook`` takes it. The one that ``last_checkpoint``
            names counts too, wherever it is.

    Raises:
        InputError: there are checkpoints, and none is intact.
    """
    found = {
        path
        for name in ('iter_{}.pth', 'epoch_{}.pth', filename_tmpl)
        for path in work_dir.glob(filename_pattern(name))
        if not path.name.startswith('best_')  # which no training resumes from
    }
    if (work_dir / 'last_checkpoint').is_file():
        last = Path(find_latest_checkpoint(str(work_dir)) or '')
        found |= {path for path in (work_dir / last.name, last) if path.is_file()}
    latest = sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    damaged: list[Path] = []
    for path in latest:
        if is_intact(path):
            return path, damaged
        damaged.append(path)
    if damaged:
        raise InputError(
            f'None of the checkpoints in {work_dir} is intact ({", ".join(path.name for path in damaged)}): '
            'name one by --resume CHECKPOINT, or remove them to start from the beginning.'
        )
    return None, []
