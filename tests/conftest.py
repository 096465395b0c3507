"""Fixtures of the whole suite."""

from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

SHARED = Path(__file__).resolve().parents[2] / 'shared'


@pytest.fixture(scope='session', autouse=True)
def mmdet_scope() -> None:
    """What ``default_scope = 'mmdet'`` does in a config: registries of MMEngine and MMCV find MMDetection's classes."""
    DefaultScope.get_instance('tests', scope_name='mmdet')


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder of reference facts and sample data beside the repository; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(f'the reference data is not here: no folder {SHARED}')
    return SHARED
