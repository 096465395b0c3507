"""The whole job on made data: draw shapes, train, test, and report. Interrupted, the same command goes on."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from centermask.datasets.shapes import dataset_exists, make_dataset
from centermask.engine.cli import ends_like_ctrl_c, run
from centermask.report import build_report
from centermask.utils.errors import RunError

TOOLS = Path(__file__).resolve().parent
CONFIG = TOOLS.parent / 'configs/demo/centermask-lite-star_v2-19-slim_shapes.py'
DATA = Path('data/shapes')
SPLITS = {'train': (2000, 0), 'val': (250, 1)}  # number of images and seed
LEAST_AP = 0.50


def make_data(folder: Path) -> None:
    """Draw the splits that aren't there as they should be."""
    for split, (images, seed) in SPLITS.items():
        out = folder / split
        if dataset_exists(out, images, seed):
            print(f'    {out} is there')
        else:
            make_dataset(out, images, seed)
            print(f'    {out}: {images} images drawn')


def data_options(folder: Path) -> list[str]:
    """Options that point the config at another folder of shapes."""
    if folder == DATA:
        return []
    loaders = [f'{mode}_dataloader.dataset.data_root={folder}/' for mode in ('train', 'val', 'test')]
    return [*loaders, *(f'{mode}_evaluator.ann_file={folder}/val/annotations.json' for mode in ('val', 'test'))]


def call(what: str, tool: str, *args: str | Path, options: list[str]) -> None:
    """Run one of our commands, in a process that an interruption ends together with its workers.

    Raises:
        RunError: it failed.
    """
    command = [sys.executable, TOOLS / tool, CONFIG, *args, *(['--cfg-options', *options] if options else [])]
    # Else libgomp's threads spin while they wait, and keep the loader's process from the core.
    environ = {'GOMP_SPINCOUNT': '20000', **os.environ}
    child = subprocess.Popen(list(map(str, command)), env=environ, start_new_session=True)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        raise
    if code:
        raise RunError(f'{what} ended with exit code {code}: mend what it says above and run the same command again')


def last_checkpoint(work_dir: Path) -> Path:
    """The checkpoint that the training named as its last.

    Raises:
        RunError: there is none.
    """
    try:
        # By its name alone: the folder may have been moved since.
        checkpoint = work_dir / Path((work_dir / 'last_checkpoint').read_text().strip()).name
    except OSError:
        checkpoint = work_dir / 'last_checkpoint'
    if not checkpoint.is_file():
        raise RunError(f'{checkpoint} is missing: remove {work_dir} and run the same command to train anew')
    return checkpoint


def demo(work_dir: Path, data: Path) -> None:
    """Run the four steps.

    Raises:
        RunError: a step failed, or the AP is below what the demo must reach.
    """
    start = time.monotonic()
    print('[1/4] Data')
    make_data(data)
    options = data_options(data)
    print(f'[2/4] Training, into {work_dir}: about 8 min on two cores', flush=True)
    call('training', 'train.py', '--work-dir', work_dir, '--resume', options=options)
    print('[3/4] Test on the images held back', flush=True)
    prefix = work_dir / 'test' / 'results'
    options = [f'test_evaluator.outfile_prefix={prefix}', *options]
    call('the test', 'test.py', last_checkpoint(work_dir), '--work-dir', work_dir / 'test', options=options)
    print('[4/4] Report')
    report = build_report(work_dir, str(prefix), work_dir / 'report', shlex.join(sys.argv))
    box, mask = report.box.figures['AP'], report.mask.figures['AP']
    print(f'box AP {box:.3f}, mask AP {mask:.3f} after {(time.monotonic() - start) / 60:.1f} min')
    print(f'Report:   {report.page}')
    print(f'Pictures: {report.page.parent / "pictures"}')
    for kind, ap in (('box', box), ('mask', mask)):
        if not ap >= LEAST_AP:
            raise RunError(
                f'The {kind} AP {ap:.3f} is below {LEAST_AP:.2f}, which the demo must reach: '
                f'undo changes of the config or the code, remove {work_dir}, and run the same command again'
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default='work_dirs/demo', help='checkpoints, logs and report')
    parser.add_argument('--data', type=Path, default=DATA, help=f'where the shapes are or go (default {DATA})')
    args = parser.parse_args()
    with ends_like_ctrl_c('Interrupted: the same command goes on from the last checkpoint'):
        demo(args.work_dir, args.data)


if __name__ == '__main__':
    sys.exit(run(main))
