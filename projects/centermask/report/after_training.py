"""Test a training's best checkpoint and write the report about it."""

from __future__ import annotations

import copy
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner
from mmengine.runner.checkpoint import find_latest_checkpoint

from centermask.engine.checkpoint_hook import best_checkpoint
from centermask.engine.configs import build_runner
from centermask.report.build import build_report, report_options
from centermask.utils.errors import RunError


def report_training(runner: Runner, cfg: Config, command: str) -> None:
    """Test the best checkpoint of a training into ``WORK_DIR/test`` and write ``WORK_DIR/report``.

    Args:
        runner: of the training that has ended. Where it kept no best checkpoint, the last one is tested.
        cfg: its config.
        command: the command line, shown in the report.

    Raises:
        RunError: the training left no checkpoint.
    """
    work_dir = Path(cfg.work_dir)
    barrier()  # the first process writes the checkpoint
    best = best_checkpoint(runner)
    checkpoint = str(best) if best else find_latest_checkpoint(str(work_dir))
    if checkpoint is None:
        raise RunError(f'{work_dir} has no last checkpoint to report on: train with default_hooks.checkpoint.')
    test = copy.deepcopy(cfg)
    test.update(load_from=checkpoint, resume=False, work_dir=str(work_dir / 'test'))
    test.visualizer = dict(type='CenterMaskVisualizer', name='test')  # one of its own, which records nowhere
    test.merge_from_dict(report_options(work_dir / 'test'))
    if is_main_process():
        print(f'Tested: {checkpoint}, {"of the best validation" if best else "the last"}.', flush=True)
    build_runner(test).test()
    if is_main_process():
        print(build_report(work_dir, work_dir / 'test', work_dir / 'report', command))
    barrier()
