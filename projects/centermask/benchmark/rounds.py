"""Interleaved rounds: what is compared runs by turns in one process, so that a slow minute of the machine hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch


class Times(NamedTuple):
    """Milliseconds of one image: the median and the quartiles over the rounds."""

    median: float
    lower: float
    upper: float


def summary(seconds: Sequence[float]) -> Times:
    """Sum up the rounds of one contestant."""
    ms = [1000 * s for s in seconds]
    lower, median, upper = statistics.quantiles(ms, n=4, method='inclusive') if len(ms) > 1 else ms * 3
    return Times(median, lower, upper)


def interleaved(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield (round, name): each name once a round, in an order that moves on by one from round to round."""
    for number in range(rounds):
        first = number % len(names)
        yield from ((number, name) for name in [*names[first:], *names[:first]])


def measure(
    runs: Mapping[str, Callable[[int], object]],
    rounds: int,
    timed: Callable[[Callable[[], object]], float],
    warm_up: int = 1,
    report: Callable[[str], None] = lambda line: None,
    memory: Callable[[str], AbstractContextManager] = lambda name: nullcontext(),
) -> dict[str, list[float]]:
    """Run everything by turns and return the seconds of each run by name, without those of the warm-up.

    Args:
        runs: by name, what runs on the picture of a round.
        rounds: that are timed.
        timed: runs something and returns the seconds that it took.
        warm_up: rounds before them.
        report: told how far it is and how long it will still take, after each round.
        memory: by name, what a run is in, beside the time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    start, last = time.monotonic(), 0
    for number, name in interleaved(list(runs), warm_up + rounds):
        if number > last:
            left = (time.monotonic() - start) / number * (warm_up + rounds - number)
            report(f'round {number} of {warm_up + rounds}, {left:.0f} s left')
            last = number
        with memory(name):
            took = timed(lambda name=name, number=number: runs[name](number))  # type: ignore[misc]
        if number >= warm_up:
            seconds[name].append(took)
    return seconds


def timed_on(device: str) -> Callable[[Callable[[], object]], float]:
    """Return what times a run on this device: on a GPU by events, with nothing else under way before and after."""
    if not device.startswith('cuda'):
        return _timed_on_host

    def timed(run: Callable[[], object]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / 1000

    return timed


def _timed_on_host(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
