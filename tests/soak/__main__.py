"""Kill, interrupt and watch small trainings: python tests/soak [--kills 20] [--minutes 30].

A training resumes after every signal. Its last checkpoint must equal that of an undisturbed training bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from centermask.datasets.shapes import make_dataset
from centermask.engine.cli import run
from centermask.utils.atomic_io import TMP_PREFIX
from centermask.utils.errors import RunError

REPOSITORY = Path(__file__).resolve().parents[2]
ITERATIONS, INTERVAL = 16, 2  # of a training, and between its checkpoints
SIGNALS_EACH = 5  # of a training
MAX_GROWTH = 20.0  # MB of memory between a third of a training and its end
COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')

# Four RoIs an image are sampled from more, so that random numbers matter.
CONFIG = """
_base_ = '{repository}/configs/demo/centermask-lite-star_v2-19-slim_shapes.py'
model = dict(train_cfg=dict(sampler=dict(num=4)))
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(data_root='{folder}/'))
val_dataloader = dict(dataset=dict(data_root='{folder}/'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{folder}/val/annotations.json')
test_evaluator = val_evaluator
train_cfg = dict(max_iters={iterations}, val_interval=7)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
default_hooks = dict(checkpoint=dict(interval={interval}, max_keep_ckpts=1))
randomness = dict(seed=0, deterministic=True)
"""


class Training:
    """A training in processes of its own, which is resumed each time that it is started.

    Args:
        folder: the folder of the data, configs and work folders.
        name: of this training.
        processes: how many.
        iterations: how many.
    """

    def __init__(self, folder: Path, name: str, processes: int = 1, iterations: int = ITERATIONS) -> None:
        self.work_dir = folder / name
        self.processes = processes
        self.iterations = iterations
        self.config = folder / f'{name}.py'
        words = dict(repository=REPOSITORY, folder=folder, iterations=iterations, interval=min(iterations, INTERVAL))
        self.config.write_text(CONFIG.format(**words))

    def start(self) -> subprocess.Popen:
        """Start or resume it."""
        command = [sys.executable, 'tools/train.py', str(self.config)]
        if self.processes > 1:
            command = ['tools/dist_train.sh', str(self.config), str(self.processes)]
        with self.config.with_suffix('.log').open('a') as log:
            return subprocess.Popen(
                [*command, '--work-dir', str(self.work_dir), '--resume'],
                cwd=REPOSITORY,
                env={
                    **os.environ,
                    'PYTHON': sys.executable,
                    'OMP_NUM_THREADS': '1',
                    'PORT': str(random.randint(20000, 29999)),
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def finish(self) -> dict:
        """Train to the end and return the last checkpoint."""
        if self.start().wait():
            raise RunError(f'The training of {self.config} failed: see the last lines of its .log.')
        return torch.load(self.work_dir / f'iter_{self.iterations}.pth')

    def saved(self) -> int:
        """Return the iterations of the newest checkpoint."""
        return max((int(path.stem.removeprefix('iter_')) for path in self.work_dir.glob('iter_*.pth')), default=0)

    def is_writing(self) -> bool:
        """Return whether there is an incomplete checkpoint."""
        return any(self.work_dir.glob(f'{TMP_PREFIX}iter_*'))


def send(training: Training, number: signal.Signals, rng: random.Random, in_write: bool) -> bool:
    """Start a training and send it a signal after its next checkpoint; return whether it was still running."""
    before, process = training.saved(), training.start()
    while process.poll() is None and training.saved() <= before:
        time.sleep(0.002)
    moment = time.monotonic() + rng.uniform(0, 3)
    while process.poll() is None and (not training.is_writing() if in_write else time.monotonic() < moment):
        time.sleep(0.0002)
    if process.poll() is None and number == signal.SIGKILL:
        os.killpg(process.pid, number)  # its workers too
    elif process.poll() is None:
        psutil.Process(process.pid).children()[-1].send_signal(number)  # one of several processes
    code = process.wait()
    if code not in (0, -signal.SIGKILL if number == signal.SIGKILL else 1):  # torchrun's is 1
        raise RunError(f'{training.config} ended with exit code {code} after {number.name}: see its .log.')
    return code != 0


def differences(one: Any, other: Any, name: str) -> list[str]:
    """Return the names of what isn't equal in two checkpoints, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in differences(one[key], other[key], f'{name}.{key}')]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            found for i, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f'{name}.{i}')
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [name]
    return [] if one == other else [name]


def disturb(folder: Path, number: signal.Signals, processes: int, count: int, end: float, rng: random.Random) -> None:
    """Send ``count`` signals to trainings, and more until the time ``end``; compare each training's last checkpoint."""
    reference = Training(folder, f'undisturbed_{processes}', processes).finish()
    done = writing = trainings = 0
    while done < count or time.monotonic() < end:
        trainings += 1
        training = Training(folder, f'{number.name}_{trainings}', processes)
        for i in range(min(SIGNALS_EACH, count - done) if done < count else SIGNALS_EACH):
            while not send(training, number, rng, in_write=number == signal.SIGKILL and i % 2 == 0):
                for path in training.work_dir.glob('*.pth'):  # it had reached its end: once more from the beginning
                    path.unlink()
            done += 1
            writing += training.is_writing()
            print(f'{number.name} {done}: iteration {training.saved()} is saved', flush=True)
        last = training.finish()
        if found := [name for key in COMPARED for name in differences(reference[key], last[key], key)]:
            raise RunError(
                f'{training.config} ended with other values of {", ".join(found[:5])}: please report this bug.'
            )
        print(f'  {training.config.stem}: the last checkpoint equals the undisturbed one, bit for bit', flush=True)
    print(f'{number.name}: {done} times in {trainings} trainings, {writing} of them during a write', flush=True)


def watch_memory(folder: Path, iterations: int) -> None:
    """Train, and compare the memory (RSS, with workers) after a third of the time with that at the end."""
    process, samples = Training(folder, 'memory', iterations=iterations).start(), []
    while process.poll() is None:
        time.sleep(1)
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children()] if process.poll() is None else []
        samples += [sum(p.memory_info().rss for p in tree if p.is_running()) / 1e6] if tree else []
    tenth = len(samples) // 10
    early, late = (statistics.mean(part) for part in (samples[3 * tenth : 4 * tenth + 1], samples[-tenth - 1 : -1]))
    print(f'memory over {iterations} iterations: {early:.0f} MB, at the end {late:.0f} MB', flush=True)
    if process.returncode or late - early > MAX_GROWTH:
        raise RunError(f'The training ended with code {process.returncode} and {late - early:.0f} MB more memory.')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('--kills', type=int, default=20, help='SIGKILLs at least (default 20)')
    parser.add_argument('--interruptions', type=int, default=4, help='SIGTERMs to one of two processes (default 4)')
    parser.add_argument('--iterations', type=int, default=1000, help='iterations of the memory test (default 1000)')
    parser.add_argument('--minutes', type=float, default=30, help='more kills until these are over (default 30)')
    args = parser.parse_args()
    end, rng = time.monotonic() + 60 * args.minutes, random.Random(0)
    with tempfile.TemporaryDirectory(prefix='soak-') as name:
        folder = Path(name)
        make_dataset(folder / 'train', 9, seed=0)
        make_dataset(folder / 'val', 2, seed=1)
        if args.iterations:
            watch_memory(folder, args.iterations)
        if args.interruptions:
            disturb(folder, signal.SIGTERM, 2, args.interruptions, 0, rng)
        disturb(folder, signal.SIGKILL, 1, args.kills, end, rng)


if __name__ == '__main__':
    sys.exit(run(main))
