"""Test a training's last checkpoint and write the report about it."""

from __future__ import annotations

import copy
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.runner.checkpoint import find_latest_checkpoint

from centermask.engine.configs import build_runner
from centermask.report.build import build_report, report_options
from centermask.utils.errors import RunError


def report_training(cfg: Config, command: str) -> None:
    """Test the last checkpoint of a training into ``WORK_DIR/test`` and write ``WORK_DIR/report``.

    Args:
        cfg: of the training that has ended.
        command: the command line, shown in the report.

    Raises:
        RunError: the training left no checkpoint.
    """
    work_dir = Path(cfg.work_dir)
    barrier()  # the first process writes the checkpoint
    checkpoint = find_latest_checkpoint(str(work_dir))
    if checkpoint is None:
        raise RunError(f'{work_dir} has no last checkpoint to report on: train with default_hooks.checkpoint.')
    test = copy.deepcopy(cfg)
    test.update(load_from=checkpoint, resume=False, work_dir=str(work_dir / 'test'))
    test.merge_from_dict(report_options(work_dir / 'test'))
    build_runner(test).test()
    if is_main_process():
        print(build_report(work_dir, work_dir / 'test', work_dir / 'report', command))
    barrier()
