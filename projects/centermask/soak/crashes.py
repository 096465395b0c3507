"""Trainings that are killed or interrupted at random moments, and what their last checkpoints differ in."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from centermask.folders import PART
from centermask.soak.trainings import Training

COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')


class Crashes(NamedTuple):
    """What was done to a training, and what came of it."""

    signals: int
    writing: int  # of which came while a checkpoint was being written
    differences: list[str]


def differences(one: Any, other: Any, name: str = '') -> list[str]:
    """The names of what isn't the same in two checkpoints, bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
        return [] if same else [name]
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f'{name} (keys)']
        return [found for key in one for found in differences(one[key], other[key], f'{name}.{key}')]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            found for i, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f'{name}.{i}')
        ]
    return [] if one == other else [name]


def crash(
    training: Training,
    reference: dict,
    seconds: float,
    count: int,
    number: int,
    chance: random.Random,
    say: Callable[[str], None],
) -> Crashes:
    """Crash a training some times, let it come to its end and compare it.

    Args:
        training: not begun yet.
        reference: the last checkpoint of one that nothing happened to.
        seconds: how long that took.
        count: how many crashes.
        number: the signal. SIGKILL goes to all processes, every other time while a checkpoint is being written; another
            one to the last process alone.
        chance: gives the moments, each after a new checkpoint.
        say: is told of each crash.
    """
    done = writing = 0
    while done < count:
        in_the_write = number == signal.SIGKILL and done % 2 == 0
        there = _saved(training.work_dir)
        training.start()
        while not training.ended() and _saved(training.work_dir) <= there:
            time.sleep(0.002)
        moment = time.monotonic() + chance.uniform(0, 0.15) * seconds
        while not training.ended() and (not _writing(training.work_dir) if in_the_write else time.monotonic() < moment):
            time.sleep(0.0002)
        ended = training.ended()
        if not ended:
            time.sleep(chance.uniform(0, 0.003) if in_the_write else 0)
            ranks = range(training.processes) if number == signal.SIGKILL else [training.processes - 1]
            for rank in ranks:
                training.send(number, rank)
        codes = training.wait()
        if ended and any(codes):
            return Crashes(done, writing, [f'exit codes {codes} without a signal'])
        if not any(codes):  # or in its last validation, with all done and saved
            say('  (it came to its end first: once more from the beginning)')
            for file in training.work_dir.glob('*.pth'):
                file.unlink()
            continue
        done += 1
        half = _writing(training.work_dir)
        writing += half
        kept = sorted((path.name for path in training.work_dir.glob('iter_*.pth')), key=len)
        say(
            f'  {signal.Signals(number).name} {done} of {count}: exit codes {codes}, checkpoints {kept}'
            + (', one half-written' if half else '')
        )
        if number != signal.SIGKILL and any(code != 128 + number for code in codes):
            return Crashes(done, writing, [f'exit codes {codes}'])
    last = training.finish()
    found = [name for key in COMPARED for name in differences(reference[key], last[key], key)]
    return Crashes(done, writing, found)


def _writing(work_dir: Path) -> bool:
    return any(work_dir.glob(f'{PART}iter_*'))


def _saved(work_dir: Path) -> int:
    """The iterations of the newest checkpoint."""
    return max((int(path.stem.removeprefix('iter_')) for path in work_dir.glob('iter_*.pth')), default=0)
