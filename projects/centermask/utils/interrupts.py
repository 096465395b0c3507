"""Ctrl-C and SIGTERM that are remembered, so that a loop ends where its results are complete."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """A context in which SIGTERM and Ctrl-C are remembered instead of ending the program; a second Ctrl-C ends it.

    Args:
        what_follows: a clause that is printed at the first of them, or '' to print none.

    Attributes:
        number: the signal received, 0 if there was none.
    """

    def __init__(self, what_follows: str) -> None:
        self.number = 0
        self._what_follows = what_follows
        self._handlers: dict[int, Any] = {}  # from before

    def __enter__(self) -> Interrupts:
        self.number = 0
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup it stays ignored
                    self._handlers[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._handlers):
            signal.signal(number, self._handlers.pop(number))

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == number:
            raise KeyboardInterrupt
        if self._what_follows and not self.number:
            text = f'\n{signal.Signals(number).name}: {self._what_follows}; Ctrl-C again ends it at once\n'
            os.write(2, text.encode())  # the signal may have interrupted a print, which isn't reentrant
        self.number = number

    def leave(self) -> None:
        """End the program as the signal would have: with KeyboardInterrupt, or with exit code 143 after SIGTERM."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number:
            raise SystemExit(128 + self.number)
