"""AP of a checkpoint and of a file made of it, on the config's test data."""

from __future__ import annotations

import tempfile

from mmengine.config import Config

from centermask.engine.configs import build_runner
from centermask.export.exported_detector import put_in_place
from centermask.export.runtime import is_exported


def measure(cfg: Config, file: str) -> dict[str, float]:
    """What tools/test.py measures, as ``{'bbox_mAP': …, 'segm_mAP': …}``.

    Args:
        cfg: read as tools/test.py reads it.
        file: checkpoint or exported file.
    """
    cfg = cfg.copy()
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        cfg.load_from, cfg.resume, cfg.launcher = file, False, 'none'
        if is_exported(file):
            put_in_place(cfg, file)
        figures = build_runner(cfg).test()
    return {key.partition('/')[2]: value for key, value in figures.items() if key.endswith('mAP')}
