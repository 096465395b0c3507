"""This repository's configs, each read once, since reading one takes MMEngine a tenth of a second."""

import copy
from functools import cache
from pathlib import Path

from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def find_config(name: str) -> Path:
    """Return the path of a config by its name without its ending."""
    return next(CONFIGS.rglob(f'{name}.py'))


@cache
def _read(name: str) -> Config:
    return Config.fromfile(find_config(name))


def read_config(name: str) -> Config:
    """Return a copy of a config, by its name without its ending."""
    return copy.deepcopy(_read(name))
