"""Memory for large tensors that the process has already, from one image to the next."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4

LARGE = 2**25  # bytes; glibc takes larger pieces from the system, once it has adapted itself to large tensors
KEPT = 2**29  # bytes of free memory that the process keeps at most


@contextmanager
def large_buffers_kept() -> Iterator[None]:
    """Within, large tensors get memory that the process has already, and afterwards it is kept for the next image.

    By itself glibc takes pieces of 32 MB and more from the system each time and gives free memory back from 64 MB on.
    The system then clears the same pages again for every image: three quarters of the time of a ResNet-50's first stage
    at 800 pixels.

    One setting lasts as long as the process: of the memory at the end of its heap, where small and middle-sized pieces
    come from, up to ``KEPT`` bytes stay with it when they are free, instead of 64 MB. Other code in the process finds
    malloc otherwise as it is after large tensors: pieces of 32 MB and more are taken from the system and given back.
    Does nothing where malloc is another's, and next to nothing in threads but the main one, which glibc gives heaps of
    64 MB.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
    if mallopt is None:
        yield
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    mallopt(M_MMAP_THRESHOLD, LARGE)
    mallopt(M_MMAP_MAX, 0)
    try:
        yield
    finally:
        mallopt(M_MMAP_MAX, 2**16)  # glibc's default
