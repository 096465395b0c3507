"""Guard against a crash that OpenVINO causes: a freed alternate signal stack (``sigaltstack(2)``)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """``stack_t`` of ``sigaltstack(2)``."""

    _fields_ = (('ss_sp', ctypes.c_void_p), ('ss_flags', ctypes.c_int), ('ss_size', ctypes.c_size_t))


@contextmanager
def preserve_sigaltstack() -> Iterator[None]:
    """Restore this thread's alternate signal stack on exit. Usable as a decorator.

    OpenVINO's CPU plugin sets an alternate signal stack in the thread that creates it. When the plugin is freed, it
    restores the stack that it found, but only if its own is still set. If two models are opened and the first is freed
    first, the second restores the stack of the first, which no longer exists. The next signal with a handler (Ctrl-C,
    or the end of a data loader's worker) then kills the process without a message. If the stack of before is restored
    as soon as the plugin is created, no plugin finds its own stack, and none restores anything.
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
