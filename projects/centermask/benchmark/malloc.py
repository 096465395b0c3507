"""glibc's memory as a process has it that never ran a CenterMask.

A CenterMask tests in memory that the process keeps (:mod:`centermask.fast.malloc`). In one process with it, other
models would find that memory and be spared the system's clearing of fresh pages, which they pay where they run alone.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from centermask.fast.malloc import M_TRIM_THRESHOLD, MMAP_THRESHOLD, TRIM_THRESHOLD

DEFAULT_TRIM_THRESHOLD = 2 * MMAP_THRESHOLD
MOST_PIECES = 4096


class _Information(ctypes.Structure):
    """What mallinfo2 returns; ``hblks`` counts the pieces taken fresh from the system."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ('arena', 'ordblks', 'smblks', 'hblks', 'hblkhd')),
        *((name, ctypes.c_size_t) for name in ('usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost')),
    )


@contextmanager
def without_kept_memory() -> Iterator[None]:
    """Within, large tensors get none of the memory that the process has kept: all large free pieces are taken.

    Afterwards they are free again, as they were. Does nothing where malloc is not glibc's.
    """
    library = ctypes.CDLL(None)
    if sys.platform != 'linux' or not hasattr(library, 'mallinfo2'):
        yield
        return
    library.mallinfo2.restype = _Information
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    library.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
    fresh = library.mallinfo2().hblks
    taken: list[int] = []
    while len(taken) < MOST_PIECES:
        taken.append(library.malloc(MMAP_THRESHOLD))
        if library.mallinfo2().hblks > fresh:  # no free piece was large enough
            break
    try:
        yield
    finally:
        library.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
        for piece in taken:
            library.free(piece)
