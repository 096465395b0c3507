"""What a training checks before it starts: the annotations, but no image."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from centermask.datasets.checking.assignment import Assignment
from centermask.datasets.checking.check import check_dataset
from centermask.datasets.checking.findings import Level
from centermask.datasets.checking.table import describe
from centermask.datasets.coco import innermost

# Images that are looked at: a few seconds.
SAMPLE = 300


def check_training_data(cfg: Config) -> str:
    """Check a part of what a config trains on, without reading images, and return the tables.

    Raises:
        InputError: as :func:`check_dataset` does.
    """
    dataset = innermost(cfg.train_dataloader)
    root = Path(dataset.get('data_root') or '')
    with_fcos = 'FCOS' in str(cfg.model.get('bbox_head', {}).get('type'))
    assignment = Assignment(cfg) if with_fcos else None
    images = root / dataset['data_prefix']['img']
    check = check_dataset(root / dataset['ann_file'], images, assignment, decode=False, sample=SAMPLE)
    more = '' if check.trains else f'\nAll of it, images too: python tools/check_dataset.py {check.ann_file} {images}'
    return describe(check, Level.LOSES) + more
