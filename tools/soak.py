"""Kill, interrupt and watch small trainings: python tools/soak.py [--kills 20] [--minutes 30]."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from centermask.engine.launch import run
from centermask.errors import RunError
from centermask.soak.crashes import crash
from centermask.soak.memory import MemoryHook, growth
from centermask.soak.trainings import Training

CONFIG = str(Path(__file__).resolve().parents[1] / 'configs/centermask-lite-star_v2-19-slim_shapes.py')
ROUND = 5
ALLOWED = 20.0  # MB between a fifth of the iterations and their end


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('--kills', type=int, default=20, help='SIGKILLs at least (default 20)')
    parser.add_argument(
        '--interruptions', type=int, default=4, help='SIGTERMs to one of two processes that train together (default 4)'
    )
    parser.add_argument('--iterations', type=int, default=1000, help="of the memory's test (default 1000)")
    parser.add_argument('--minutes', type=float, default=30, help='more kills until these are over (default 30)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default 0)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    end = time.monotonic() + 60 * args.minutes
    chance = random.Random(args.seed)
    wrong = []
    with tempfile.TemporaryDirectory(prefix='soak-') as name:
        folder = Path(name)
        if args.iterations:
            wrong += watch_memory(folder, args.iterations)
        if args.interruptions:
            wrong += crash_rounds(folder, signal.SIGTERM, args.interruptions, 0, 2, chance)
        wrong += crash_rounds(folder, signal.SIGKILL, args.kills, end, 1, chance)
    if wrong:
        raise RunError(f'The soak test found {"; ".join(wrong)}: a bug of ours, please report it with the lines above.')


def watch_memory(folder: Path, iterations: int) -> list[str]:
    """Train and print how the memory grew; return what is wrong with that."""
    log = folder / 'memory.txt'
    print(f'memory over {iterations} iterations', flush=True)
    Training(CONFIG, folder, folder / 'memory', iterations, iterations, hook=MemoryHook(log)).finish()
    early, late, early_workers, late_workers = growth(log)
    print(f'  training {early:.0f} MB, at the end {late:.0f} MB; workers {early_workers:.0f} MB, {late_workers:.0f} MB')
    grown = max(late - early, late_workers - early_workers)
    return [f'{grown:.0f} MB more memory at the end'] if grown > ALLOWED else []


def crash_rounds(
    folder: Path, number: signal.Signals, count: int, end: float, processes: int, chance: random.Random
) -> list[str]:
    """Crash trainings until there were ``count`` crashes and the time is over; return what is wrong."""
    print(f'{number.name}, {processes} process(es): 16 iterations, a checkpoint every 2, one kept', flush=True)
    make = partial(Training, CONFIG, folder, iterations=16, interval=2, processes=processes)
    began = time.monotonic()
    reference = make(folder / f'reference-{processes}').finish()
    seconds = time.monotonic() - began
    done = writing = trainings = 0
    wrong: list[str] = []
    while not wrong and (done < count or time.monotonic() < end):
        trainings += 1
        crashes = min(ROUND, max(1, count - done)) if done < count else ROUND
        training = make(folder / f'{number.name}-{trainings}')
        result = crash(training, reference, seconds, crashes, number, chance, partial(print, flush=True))
        done += result.signals
        writing += result.writing
        wrong += result.differences
        for file in training.work_dir.glob('*.pth'):
            file.unlink()
        same = 'the last checkpoint is that of the uninterrupted training, bit for bit'
        print(f'  {result.signals} in a row: {"DIFFERS in " + ", ".join(wrong[:5]) if wrong else same}', flush=True)
    print(f'  {done} times in {trainings} trainings, {writing} of them while a checkpoint was being written')
    return [f'{len(wrong)} differences after {number.name}, the first in {wrong[0]}'] if wrong else []


if __name__ == '__main__':
    sys.exit(run(main))
