import math

import pytest

from centermask.ablation.statistics import interval, paired


def test_interval_by_hand() -> None:
    """1, 2, 6: mean 3, deviations −2, −1, 3, variance 14 / 2 = 7, and 4.303 × √(7 / 3) = 6.573."""
    found = interval([1, 2, 6])
    assert found.mean == 3
    assert found.half == pytest.approx(4.303 * math.sqrt(7 / 3), rel=1e-4)
    assert not found.resolved
    assert interval([2.9, 3.0, 3.1]).resolved
    assert interval([-2.9, -3.0, -3.1]).resolved


def test_one_value_tells_nothing() -> None:
    found = interval([5])
    assert found.mean == 5
    assert math.isinf(found.half)
    assert not found.resolved


def test_differences_are_paired_by_seed() -> None:
    """Seeds differ by tens and rows by one: only the pairing shows it."""
    ours, theirs = {2: 31.0, 0: 11.0, 1: 21.2}, {0: 10.0, 1: 20.0, 2: 30.2, 7: 99.0}
    found = paired(ours, theirs)
    assert found is not None
    assert found.mean == pytest.approx(1.0)
    assert found.half == pytest.approx(4.303 * 0.2 / math.sqrt(3), rel=1e-3)
    assert found.resolved
    assert paired({0: 1.0}, {1: 1.0}) is None
