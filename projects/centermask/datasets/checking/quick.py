"""What a training checks before it starts: the annotations, but no image."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from centermask.datasets.checking.assignment import Assignment
from centermask.datasets.checking.check import check_dataset
from centermask.datasets.checking.findings import Level
from centermask.datasets.checking.table import describe, describe_findings
from centermask.datasets.coco import innermost

# Images that are looked at: a few seconds.
SAMPLE = 300


def check_training_data(cfg: Config, with_tables: bool) -> str:
    """Check a part of what a config trains on, without reading images.

    Args:
        cfg: of a training; one that doesn't read COCO's format from a local folder isn't checked.
        with_tables: whether classes and levels are wanted too.

    Returns:
        Text for the user to read, '' if nothing would be lost and no tables are wanted.

    Raises:
        InputError: as :func:`check_dataset` does.
    """
    try:
        dataset = innermost(cfg.get('train_dataloader') or {})
        root = Path(dataset.get('data_root') or '')
        ann_file, images = root / dataset.get('ann_file', ''), root / (dataset.get('data_prefix') or {}).get('img', '')
    except (AttributeError, TypeError):  # no names of files, of which the data set speaks
        return ''
    if not (ann_file.is_file() and images.is_dir()):
        return ''  # if it should be there, the data set says so in its own words
    model = cfg.get('model')  # one that can't be built is refused when it is to be
    with_fcos = isinstance(model, dict) and 'FCOS' in str((model.get('bbox_head') or {}).get('type'))
    assignment = Assignment(cfg) if with_fcos else None
    check = check_dataset(ann_file, images, assignment, decode=False, sample=SAMPLE)
    text = describe(check, Level.LOSES) if with_tables else ''
    if check.trains:
        return text
    if not with_tables:
        looked_at = f' ({check.sampled} of {len(check.shown)} images looked at)' if check.sampled else ''
        text = '\n'.join([f'{ann_file}{looked_at}', *describe_findings(check, Level.LOSES)])
    return f'{text}\nEverything, images too: python tools/check_dataset.py {ann_file} {images}'
