"""OpenVINO must not leave the process a stack for signals that it has freed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """``stack_t`` of ``sigaltstack(2)``."""

    _fields_ = (('ss_sp', ctypes.c_void_p), ('ss_flags', ctypes.c_int), ('ss_size', ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Afterwards this thread handles signals on the stack of before. Also a decorator.

    Each instance of OpenVINO's CPU plugin sets a stack for signals in the thread that makes it, and when it is freed
    sets back the one it had found. Of two instances of which the first is freed first, the second sets back a stack
    that is gone, and the next signal with a handler, be it Ctrl-C or the end of a loader's worker, ends the process
    without a word. An instance that finds another stack than its own leaves it.
    """
    if sys.platform != 'linux':
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
