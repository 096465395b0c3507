"""This repository's configs, each read once: MMEngine takes a tenth of a second for the files that one inherits."""

import copy
from functools import cache
from pathlib import Path

from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@cache
def _read(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


def read_config(name: str) -> Config:
    """A copy of a config, by its path below configs/ without its ending."""
    return copy.deepcopy(_read(name))
