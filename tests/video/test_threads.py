"""Work beside the model."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from centermask.video.threads import CpuTimes, ReadAhead, WriteBehind


def test_items_come_in_order_and_their_error_last() -> None:
    def items(has_room: Callable[[], bool]) -> Iterator[int]:
        yield from range(10)
        raise ValueError('broken')

    taken = []
    with pytest.raises(ValueError, match='broken'):
        for item in ReadAhead(items, 2).take(lambda: False):
            taken.append(item)
    assert taken == [*range(10)]


def test_reading_stops() -> None:
    """No more is read than there is room for, and the thread ends."""
    read = []

    def items(has_room: Callable[[], bool]) -> Iterator[int]:
        for i in range(1000):
            read.append(i)
            yield i

    ahead = ReadAhead(items, 2)
    taken: list[int] = []
    for item in ahead.take(lambda: len(taken) == 5):
        taken.append(item)
    ahead.close()
    assert taken == [*range(5)] and len(read) <= 9
    assert not any(thread.name == 'read' for thread in threading.enumerate())


def test_a_live_source_drops() -> None:
    """While the first item is worked on, the others but one find no room."""
    worked_on = threading.Event()

    def items(has_room: Callable[[], bool]) -> Iterator[int]:
        yield 0
        worked_on.wait(10)
        for i in range(1, 100):
            if has_room():
                yield i

    taken = []
    for item in ReadAhead(items, 1).take(lambda: False):
        worked_on.set()
        time.sleep(0.2)
        taken.append(item)
    assert taken[0] == 0 and 2 <= len(taken) <= 4


def test_writing_behind() -> None:
    written: list[int] = []
    behind = WriteBehind(written.append, 2)
    for i in range(10):
        behind.put(i)
    behind.close()
    assert written == [*range(10)]

    def fail(item: int) -> None:
        raise OSError('full')

    behind = WriteBehind(fail, 2)
    behind.put(1)
    with pytest.raises(OSError, match='full'):
        behind.close()


def test_processor_time_is_the_threads_own() -> None:
    times = CpuTimes()
    with times.of('waiting'):
        time.sleep(0.1)
    assert times.seconds['waiting'] < 0.05
