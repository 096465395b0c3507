"""A study of a few iterations on a few pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from centermask.ablation.study import WIDE, Study
from centermask.datasets.shapes import DEMO

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SMALL = """
_base_ = '{base}'
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1))
model = dict(test_cfg=dict(score_thr=0.001))  # detects something without training
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path)


@pytest.fixture(scope='session')
def make() -> Callable[[Path], Study]:
    return make_study


def make_study(folder: Path) -> Study:
    configs = {}
    for name in ('ablation', 'shapes'):
        configs[name] = folder / f'{name}.py'
        configs[name].write_text(SMALL.format(base=CONFIGS / f'centermask-lite-star_v2-19-slim_{name}.py'))
    return Study(
        work_dir=folder / 'work',
        data=folder / 'data',
        configs=CONFIGS,
        base=configs['ablation'],
        start=configs['shapes'],
        pictures={
            'train': (4, 0, WIDE),
            'val': (2, 1, WIDE),
            'start/train': (4, 2, DEMO),
            'start/val': (1, 3, DEMO),
        },
    )
