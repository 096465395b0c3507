"""Trainings that are killed or interrupted at random moments, and what their last checkpoints differ in."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from centermask.utils.atomic_io import TMP_PREFIX
from soak.trainings import Training

COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')


class Crashes(NamedTuple):
    """What was done to a training, and what came of it."""

    signals: int
    writing: int  # of which came while a checkpoint was being written
    differences: list[str]


class Reference(NamedTuple):
    """A training that nothing happens to."""

    checkpoint: dict  # its last
    seconds: float  # that it takes


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


class Crasher:
    """Sends trainings a signal again and again, each time after a new checkpoint.

    Args:
        number: the signal. SIGKILL goes to all processes, every other time while a checkpoint is being written; another
            one to the last process alone.
        reference: what the trainings are compared with.
        chance: gives the moments.
        say: is told of each crash.
    """

    def __init__(
        self, number: signal.Signals, reference: Reference, chance: random.Random, say: Callable[[str], None]
    ) -> None:
        self.number = number
        self.reference = reference
        self.chance = chance
        self.say = say

    def crash(self, training: Training, count: int) -> Crashes:
        """Crash a training, not begun yet, ``count`` times, let it come to its end and compare it."""
        done = writing = 0
        while done < count:
            struck = self._strike(training, in_the_write=self.number == signal.SIGKILL and done % 2 == 0)
            codes = training.wait()
            if any(codes) and not struck:
                return Crashes(done, writing, [f'exit codes {codes} without a signal'])
            if not any(codes):  # the signal came too late or in the last validation, with all done and saved
                self.say('  (it came to its end first: once more from the beginning)')
                training.remove_checkpoints()
                continue
            done += 1
            half = _writing(training.work_dir)
            writing += half
            kept = sorted((path.name for path in training.work_dir.glob('iter_*.pth')), key=len)
            self.say(
                f'  {self.number.name} {done} of {count}: exit codes {codes}, checkpoints {kept}'
                + (', one half-written' if half else '')
            )
            if not self._expected(codes):
                return Crashes(done, writing, [f'exit codes {codes}'])
        last = training.finish()
        found = [name for key in COMPARED for name in differences(self.reference.checkpoint[key], last[key], key)]
        return Crashes(done, writing, found)

    def _strike(self, training: Training, in_the_write: bool) -> bool:
        """Start a training and send it the signal; False where it ended before."""
        before = _saved(training.work_dir)
        training.start()
        self._wait_for_the_moment(training, before, in_the_write)
        if training.ended():
            return False
        if in_the_write:
            time.sleep(self.chance.uniform(0, 0.003))
        everyone = range(training.processes)
        for rank in everyone if self.number == signal.SIGKILL else everyone[-1:]:
            training.send(self.number, rank)
        return True

    def _wait_for_the_moment(self, training: Training, before: int, in_the_write: bool) -> None:
        """Wait for a checkpoint after iteration ``before``, then a while or until the next is being written."""
        while not training.ended() and _saved(training.work_dir) <= before:
            time.sleep(0.002)
        moment = time.monotonic() + self.chance.uniform(0, 0.15) * self.reference.seconds
        while not training.ended() and (not _writing(training.work_dir) if in_the_write else time.monotonic() < moment):
            time.sleep(0.0002)

    def _expected(self, codes: list[int]) -> bool:
        """Whether processes ended as they should: all of them alike on a signal that they can handle."""
        return self.number == signal.SIGKILL or all(code == 128 + self.number for code in codes)


def _writing(work_dir: Path) -> bool:
    return any(work_dir.glob(f'{TMP_PREFIX}iter_*'))


def _saved(work_dir: Path) -> int:
    """The iterations of the newest checkpoint."""
    return max((int(path.stem.removeprefix('iter_')) for path in work_dir.glob('iter_*.pth')), default=0)
