"""Work that runs beside the model: what is read before it and what is written after it."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar('T')
POLL = 0.1  # seconds between looks at whether to stop


class CpuTimes:
    """Seconds of processor time that threads spend on each kind of work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def of(self, work: str) -> Iterator[None]:
        """Add the calling thread's processor time within the block. One kind of work belongs to one thread."""
        start = time.thread_time()
        try:
            yield
        finally:
            self.seconds[work] += time.thread_time() - start


class ReadAhead(Generic[T]):
    """Runs an iterator in a thread, a few items ahead.

    Args:
        items: runs in the thread, with ``has_room`` as its argument, by which it may drop what nobody would take yet.
        ahead: the most items that wait.
    """

    def __init__(self, items: Callable[[Callable[[], bool]], Iterator[T]], ahead: int) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), name='read', daemon=True)
        self._thread.start()

    def _run(self, items: Callable[[Callable[[], bool]], Iterator[T]]) -> None:
        end = _End(None)
        try:
            for item in items(lambda: not self._queue.full()):
                if not self._put(item):
                    return
        except BaseException as error:  # is raised where the items are taken
            end = _End(error)
        self._put(end)

    def _put(self, item: T | _End) -> bool:
        """Wait for room; return False where nobody takes items any more."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=POLL)
                return True
            except queue.Full:
                continue
        return False

    def take(self, stop: Callable[[], bool]) -> Iterator[T]:
        """Yield the items until they end or ``stop()`` is true; raise the error that ended them."""
        while not stop():
            try:
                item = self._queue.get(timeout=POLL)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                if item.error:
                    raise item.error
                return
            yield item

    def close(self) -> None:
        """End the thread, unless it waits for a stream, which it gives up by itself."""
        self._stopped.set()
        self._thread.join(timeout=1)


class _End:
    """Follows the last item, with the error that ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class WriteBehind(Generic[T]):
    """Calls a function with items in a thread, in their order.

    Args:
        write: the function.
        behind: the most items that wait; :meth:`put` waits for room.
    """

    def __init__(self, write: Callable[[T], Any], behind: int) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(behind)
        self._write = write
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name='write', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not isinstance(item := self._queue.get(), _End):
            if self._error is None:
                try:
                    self._write(item)
                except BaseException as error:  # is raised at the next item
                    self._error = error

    def put(self, item: T) -> None:
        """Hand over an item; raise the error of an earlier one."""
        if self._error:
            raise self._error
        self._queue.put(item)

    def close(self) -> None:
        """Wait until all items are written; raise the error of one that was not."""
        self._queue.put(_End(None))
        self._thread.join()
        if self._error:
            raise self._error
