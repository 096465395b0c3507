"""The released models, from the package's index of models."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mmengine.fileio import load

CONFIGS = Path(__file__).parents[1] / '.mim/configs'
"""The package's configs: a copy in an installed package, in a checkout a link."""


@cache
def released_models() -> dict[str, dict]:
    """Return the entries of ``metafile.yml`` that have weights, by the names of their configs."""
    return {model['Name']: model for model in load(CONFIGS / 'metafile.yml')['Models'] if 'Weights' in model}
