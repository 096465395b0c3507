"""Mean differences and how sure they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats


class Interval(NamedTuple):
    """A mean and half the width of its 95 % interval, infinite for a single value: that tells nothing of its spread."""

    mean: float
    half: float

    @property
    def resolved(self) -> bool:
        """Whether 0 lies outside."""
        return abs(self.mean) > self.half


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of values with its 95 % interval by Student's t (three values: 2 degrees of freedom, 4.303)."""
    count = len(values)
    if count < 2:
        return Interval(statistics.fmean(values), math.inf)
    quantile = float(stats.t.ppf(0.975, count - 1))
    return Interval(statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(count))


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval | None:
    """Return the interval of the differences seed by seed, over the seeds that both have; None where there is none."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    return interval(differences) if differences else None
