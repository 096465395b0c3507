"""Interleaved rounds: models take turns, so that a slow minute of the machine is shared by all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch

Name = TypeVar('Name')


class Times(NamedTuple):
    """Milliseconds of one image: the median and the quartiles over the rounds."""

    median: float
    lower: float
    upper: float


def summary(seconds: Sequence[float]) -> Times:
    """Return the median and the quartiles of a model's rounds."""
    ms = [1000 * s for s in seconds]
    lower, median, upper = statistics.quantiles(ms, n=4, method='inclusive') if len(ms) > 1 else ms * 3
    return Times(median, lower, upper)


def interleaved(names: Sequence[Name], rounds: int) -> Iterator[tuple[int, Name]]:
    """Yield (round, name): each name once a round, starting with the next name in each round."""
    for number in range(rounds):
        first = number % len(names)
        yield from ((number, name) for name in [*names[first:], *names[:first]])


def measure(
    runs: Mapping[Name, Callable[[int], float]],
    rounds: int,
    warm_up: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> dict[Name, list[float]]:
    """Run all models in interleaved rounds and return the seconds of each by name, without the warm-up.

    Args:
        runs: by name, a function that runs the image of a round and returns the seconds that it took.
        rounds: timed ones.
        warm_up: rounds before them.
        log: gets a line with the remaining time after each round.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    start, last = time.monotonic(), 0
    for number, name in interleaved(list(runs), warm_up + rounds):
        if number > last:
            left = (time.monotonic() - start) / number * (warm_up + rounds - number)
            log(f'round {number} of {warm_up + rounds}, {left:.0f} s left')
            last = number
        took = runs[name](number)
        if number >= warm_up:
            seconds[name].append(took)
    return seconds


def timed_on(device: str) -> Callable[[Callable[[], object]], float]:
    """Return a function that times a call on a device; on a GPU by events, with an empty queue before and after."""

    def on_host(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def on_gpu(run: Callable[[], object]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / 1000

    return on_gpu if device.startswith('cuda') else on_host
