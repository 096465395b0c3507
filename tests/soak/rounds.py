"""The soak test: rounds of trainings that are crashed, and one whose memory is watched."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from soak.crashes import Crasher, Reference
from soak.memory import MemoryHook, growth
from soak.trainings import Training

ROUND = 5  # crashes of a training
ITERATIONS, INTERVAL = 16, 2  # of a training, and between its checkpoints
ALLOWED = 20.0  # MB between a fifth of the iterations and their end


class Soak:
    """Small trainings that are watched and crashed; what is wrong comes back as a list of words.

    Args:
        config: the demo's.
        folder: where trainings write.
        chance: gives the moments of crashes.
        say: is told how it goes.
    """

    def __init__(self, config: str, folder: Path, chance: random.Random, say: Callable[[str], None]) -> None:
        self.config = config
        self.folder = folder
        self.chance = chance
        self.say = say

    def watch_memory(self, iterations: int) -> list[str]:
        """Train, tell how the memory grew, and return what is wrong with that."""
        log = self.folder / 'memory.txt'
        self.say(f'memory over {iterations} iterations')
        hook = MemoryHook(log)
        Training(self.config, self.folder, self.folder / 'memory', iterations, iterations, hook=hook).finish()
        early, late, early_workers, late_workers = growth(log)
        workers = f'{early_workers:.0f} MB, {late_workers:.0f} MB'
        self.say(f'  training {early:.0f} MB, at the end {late:.0f} MB; workers {workers}')
        grown = max(late - early, late_workers - early_workers)
        return [f'{grown:.0f} MB more memory at the end'] if grown > ALLOWED else []

    def crash(self, number: signal.Signals, processes: int, count: int, end: float = 0.0) -> list[str]:
        """Crash trainings round after round and return what is wrong.

        Args:
            number: the signal.
            processes: of each training.
            count: crashes at least.
            end: and more until then, by ``time.monotonic``.
        """
        self.say(
            f'{number.name}, {processes} process(es): {ITERATIONS} iterations, a checkpoint every {INTERVAL}, one kept'
        )
        make = partial(
            Training, self.config, self.folder, iterations=ITERATIONS, interval=INTERVAL, processes=processes
        )
        began = time.monotonic()
        last = make(self.folder / f'reference-{processes}').finish()
        crasher = Crasher(number, Reference(last, time.monotonic() - began), self.chance, self.say)
        done = writing = trainings = 0
        wrong: list[str] = []
        while not wrong and (done < count or time.monotonic() < end):
            trainings += 1
            training = make(self.folder / f'{number.name}-{trainings}')
            result = crasher.crash(training, min(ROUND, count - done) if done < count else ROUND)
            done += result.signals
            writing += result.writing
            wrong += result.differences
            training.remove_checkpoints()
            same = 'the last checkpoint is that of the uninterrupted training, bit for bit'
            self.say(f'  {result.signals} in a row: {"DIFFERS in " + ", ".join(wrong[:5]) if wrong else same}')
        self.say(f'  {done} times in {trainings} trainings, {writing} of them while a checkpoint was being written')
        return [f'{len(wrong)} differences after {number.name}, the first in {wrong[0]}'] if wrong else []
