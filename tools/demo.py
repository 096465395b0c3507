"""Draw synthetic shapes, train on them, test, and write a report. Interrupted, the same command resumes."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from centermask.checkpoints.latest import find_latest
from centermask.datasets.shapes import dataset_exists, make_dataset
from centermask.engine.cli import command_line, run
from centermask.report import build_report, report_options
from centermask.utils.errors import RunError

TOOLS = Path(__file__).resolve().parent
CONFIG = TOOLS.parent / 'configs/demo/centermask-lite-star_v2-19-slim_shapes-copy-paste.py'
DATA = Path('data/shapes')
SPLITS = {'train': (2000, 0), 'val': (250, 1)}  # number of images and seed
LEAST_AP = 0.60


def call(tool: str, *args: str | Path) -> None:
    """Run one of our commands in a process that an interruption ends together with its workers.

    Raises:
        RunError: it failed.
    """
    # Else libgomp's threads spin while they wait, and keep the loader's process from the core.
    environ = {'GOMP_SPINCOUNT': '20000', **os.environ}
    command = [sys.executable, TOOLS / tool, CONFIG, *args]
    child = subprocess.Popen(list(map(str, command)), env=environ, start_new_session=True)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        raise
    if code:
        raise RunError(
            f'{tool} ended with exit code {code}: correct what it names above and run the same command again'
        )


def demo(work_dir: Path) -> None:
    """Run the four steps.

    Raises:
        RunError: a step failed, or the AP is below ``LEAST_AP``.
    """
    start = time.monotonic()
    if find_latest(work_dir)[0] and not (work_dir / CONFIG.name).exists():
        raise RunError(f'{work_dir} has a training of another config: remove it, or give another --work-dir')
    print('[1/4] Data', flush=True)
    for split, (images, seed) in SPLITS.items():
        if not dataset_exists(DATA / split, images, seed):
            make_dataset(DATA / split, images, seed)
    print(f'[2/4] Training, into {work_dir}: 7 to 10 min on two cores', flush=True)
    # In bfloat16 a step takes two thirds of the time, where the CPU multiplies matrices of it (AMX).
    amp = ['--amp'] if torch.cpu._is_amx_tile_supported() and not torch.cuda.is_available() else []
    call('train.py', '--work-dir', work_dir, '--resume', *amp)
    print('[3/4] Test on the validation images', flush=True)
    checkpoint, _ = find_latest(work_dir)
    if checkpoint is None:
        raise RunError(f'{work_dir} has no checkpoint: remove it and run the same command to train from the beginning')
    test_dir = work_dir / 'test'
    options = [f'{key}={value}' for key, value in report_options(test_dir).items()]
    call('test.py', checkpoint, '--work-dir', test_dir, '--cfg-options', *options)
    print('[4/4] Report', flush=True)
    report = build_report(work_dir, test_dir, work_dir / 'report', command_line())
    print(f'{report}\n{(time.monotonic() - start) / 60:.1f} min')
    export = [TOOLS / 'export.py', CONFIG, checkpoint, '--format', 'web', '--out', work_dir / 'site']
    serve = ['-m', 'http.server', '8000', '-d', work_dir / 'site']
    print('The model in your browser, at http://localhost:8000:')
    for words in (export, serve):
        print('   ', shlex.join(map(str, [sys.executable, *words])))
    for kind, ap in report.ap.items():
        if not ap >= LEAST_AP:
            raise RunError(
                f'The {kind} AP {ap:.3f} is below {LEAST_AP:.2f}, which the demo must reach: '
                f'undo changes of the config or the code, remove {work_dir}, and run the same command again'
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default='work_dirs/demo', help='checkpoints, logs and report')
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler ends the training too
    demo(args.work_dir)


if __name__ == '__main__':
    sys.exit(run(main))
