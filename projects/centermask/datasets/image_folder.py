"""Find the images that an annotation file names, where it was written on another system than the one that reads it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from centermask.utils.errors import InputError


class ImageFolder:
    """A folder of images, listed once: a second for 118,000 files, where asking for each takes minutes.

    Backslashes in a name are slashes where no file has them, and letters with accents are found in whichever of
    Unicode's normal forms the disk has them (macOS takes them apart, others don't).

    Args:
        folder: Path that names are relative to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = str(folder)
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """Return the path of an image, None if there is none."""
        for variant in dict.fromkeys((name, name.replace('\\', '/'))):
            path = self.folder
            for part in variant.split('/'):
                if part in ('', '.'):
                    continue
                entries = self._entries(path)
                found = entries.get(part) or entries.get(_composed(part))
                if found is None:
                    break
                path = os.path.join(path, found)
            else:
                return path
        return None

    def find_all(self, names: Sequence[str], ann_file: str) -> list[str]:
        """Return the paths of the images of an annotation file.

        Raises:
            InputError: Names the first missing file and how many are missing.
        """
        paths = [self.find(name) for name in names]
        missing = [name for name, path in zip(names, paths, strict=True) if path is None]
        if missing:
            raise InputError(
                f'{len(missing)} of the {len(paths)} images of {ann_file} are missing, the first is '
                f'{os.path.join(self.folder, missing[0])}: put them there or correct data_root and data_prefix.'
            )
        return [path for path in paths if path is not None]

    def _entries(self, folder: str) -> dict[str, str]:
        if folder not in self._listed:
            names = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
            self._listed[folder] = {_composed(name): name for name in names} | {name: name for name in names}
        return self._listed[folder]


def _composed(name: str) -> str:
    return unicodedata.normalize('NFC', name)
