"""The memory of a training over its iterations."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner


class MemoryHook(Hook):
    """Writes the memory (RSS) of the training and its workers to a file, a line each few iterations.

    Args:
        path: of lines ``iteration megabytes megabytes_of_workers``.
        interval: iterations between lines.
    """

    priority = 'LOWEST'

    def __init__(self, path: Path, interval: int = 10) -> None:
        self.path = path
        self.interval = interval

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self.every_n_train_iters(runner, self.interval):
            children = Path(f'/proc/self/task/{os.getpid()}/children').read_text().split()
            workers = sum(map(resident, children))
            with self.path.open('a') as file:
                file.write(f'{runner.iter + 1} {resident("self"):.1f} {workers:.1f}\n')


def resident(process: str) -> float:
    """The memory that a process has in use (RSS), in MB; Linux only."""
    return int(Path(f'/proc/{process}/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6


def growth(path: Path) -> tuple[float, float, float, float]:
    """The memory in MB around a fifth of the iterations and at their end, of the training and then of its workers.

    The mean of a tenth of the iterations each, as batches differ in size.
    """
    lines = [[float(number) for number in line.split()] for line in path.read_text().splitlines()]
    tenth = max(1, len(lines) // 10)
    early, late = lines[2 * tenth : 3 * tenth] or lines[:tenth], lines[-tenth:]

    def mean(part: list[list[float]], column: int) -> float:
        return sum(line[column] for line in part) / len(part)

    return mean(early, 1), mean(late, 1), mean(early, 2), mean(late, 2)
