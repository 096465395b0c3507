"""The project's own index, and a copy of it that a test may spoil."""

import shutil
from pathlib import Path

import pytest

from centermask.tables.index import Index, read_index

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.fixture(scope='session')
def index() -> Index:
    return read_index(CONFIGS)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the folder of configs."""
    return Path(shutil.copytree(CONFIGS, tmp_path / 'configs'))
