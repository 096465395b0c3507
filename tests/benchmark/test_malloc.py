"""Other models find none of the memory that a CenterMask keeps."""

import ctypes
import sys

import pytest
import torch

from centermask.benchmark.malloc import _Information, without_kept_memory
from centermask.benchmark.models import EQUAL, SHIPPED, Contestant
from centermask.fast.malloc import MMAP_THRESHOLD, large_buffers_kept


def _fresh_pieces() -> int:
    """How many pieces of memory glibc has taken fresh from the system."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Information
    return library.mallinfo2().hblks


@pytest.mark.skipif(
    sys.platform != 'linux' or not hasattr(ctypes.CDLL(None), 'mallinfo2'), reason='malloc is not glibc 2.33 or later'
)
def test_large_tensors_are_fresh() -> None:
    with large_buffers_kept():
        torch.ones(3 * MMAP_THRESHOLD // 4)  # of 4 bytes each
    before = _fresh_pieces()
    kept = torch.ones(2 * MMAP_THRESHOLD // 4)
    assert _fresh_pieces() == before
    del kept
    with without_kept_memory():
        before = _fresh_pieces()
        fresh = torch.ones(2 * MMAP_THRESHOLD // 4)
        assert _fresh_pieces() == before + 1
        del fresh


def test_who_runs_in_which_memory(calibrated) -> None:
    center_mask, _ = calibrated('star', 5)
    other, _ = calibrated('YOLACT', 5)
    equal = Contestant('small', EQUAL, other.model, other.batches, 'tensor')
    assert other.way == SHIPPED
    names = [type(one.memory()).__name__ for one in (center_mask, other, equal)]
    assert names == ['nullcontext', '_GeneratorContextManager', '_GeneratorContextManager']
    assert other.memory().func is without_kept_memory.__wrapped__
    assert equal.memory().func is large_buffers_kept.__wrapped__
