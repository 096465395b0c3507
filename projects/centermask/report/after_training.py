"""Test what a training reached and write the report about it."""

from __future__ import annotations

import copy
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.runner.checkpoint import find_latest_checkpoint

from centermask.engine.configs import build_runner
from centermask.report.build import build_report
from centermask.utils.errors import RunError


def report_training(cfg: Config, command: str) -> None:
    """Test the last checkpoint of a training into ``WORK_DIR/test`` and write ``WORK_DIR/report``.

    Args:
        cfg: of the training that has ended.
        command: what the user typed, shown in the report.

    Raises:
        RunError: the training left no checkpoint.
    """
    work_dir = Path(cfg.work_dir)
    barrier()  # the first process writes the checkpoint
    checkpoint = find_latest_checkpoint(str(work_dir))
    if checkpoint is None:
        raise RunError(f'{work_dir} has no last checkpoint to report on: train with default_hooks.checkpoint.')
    prefix = str(work_dir / 'test' / 'results')
    test = copy.deepcopy(cfg)
    test.update(load_from=checkpoint, resume=False, work_dir=str(work_dir / 'test'))
    test.test_evaluator.outfile_prefix = prefix
    build_runner(test).test()
    if is_main_process():
        report = build_report(work_dir, prefix, work_dir / 'report', command)
        mask = '' if report.mask is None else f', mask AP {report.mask.figures["AP"]:.3f}'
        print(f'box AP {report.box.figures["AP"]:.3f}{mask}')
        print(f'Report:   {report.page}')
        print(f'Pictures: {report.page.parent / "pictures"}')
    barrier()
