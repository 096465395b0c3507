"""The released models, from the package's index of models."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

from mmengine.fileio import load

CONFIGS = Path(__file__).parents[1] / '.mim/configs'
"""The package's configs: a copy in an installed package, in a checkout a link."""


class Release(NamedTuple):
    """A released checkpoint: its link, its SHA-256 in hexadecimal and a folder for a browser, '' where unknown."""

    link: str
    sha256: str
    folder: str


@cache
def released_models() -> dict[str, Release]:
    """Return the released checkpoints of ``metafile.yml`` by the names of their configs."""
    metafile = load(CONFIGS / 'metafile.yml')
    folders = {entry['Name']: entry['Metadata'].get('Weights Folder', '') for entry in metafile['Collections']}
    return {
        model['Name']: Release(model['Weights'], model.get('SHA-256', ''), folders[model['In Collection']])
        for model in metafile['Models']
        if 'Weights' in model
    }


def find_release(link: str) -> Release | None:
    """Return the released checkpoint of a link, by any name of its host; None for any other file."""
    path = urlparse(link).path
    return next((release for release in released_models().values() if urlparse(release.link).path == path), None)
