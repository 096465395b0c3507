"""After some images the next one takes no new memory from the system."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: page faults of an image and of tensors of 160 MB, and the peak memory in KiB.
SCRIPT = """
import contextlib, resource, sys
import torch
from mmengine.registry import init_default_scope
from helpers.small_model import batch, noise_image, sample, small_model
from centermask.fast import fused_inference, malloc

torch.set_num_threads(1)
init_default_scope('mmdet')
model, size = small_model(), (544, 736)
data = batch(model, [noise_image(*size)], [sample(*size)])
kept = malloc.large_buffers_kept if sys.argv[1] == 'kept' else contextlib.nullcontext
fused_inference.large_buffers_kept = kept

def tensors():
    with kept():
        return [torch.ones(10**7) for _ in range(4)]  # freed later, as results are

def used(what):
    return getattr(resource.getrusage(resource.RUSAGE_SELF), what)

with torch.no_grad():
    for run in (lambda: model(*data, mode='predict'), tensors):
        for _ in range(3):
            run()
        pages = used('ru_minflt')
        run()
        run()
        print((used('ru_minflt') - pages) // 2)
print(used('ru_maxrss'))
"""


def _measure(setting: str) -> list[int]:
    command = [sys.executable, '-c', SCRIPT, setting]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != 'linux' or not hasattr(ctypes.CDLL(None), 'mallinfo2'), reason='malloc is not glibc 2.33 or later'
)
def test_an_image_takes_no_new_memory() -> None:
    """It holds from the fourth image on; the peak is hardly higher than with malloc's defaults."""
    image, tensors, peak = _measure('kept')
    default_image, default_tensors, default_peak = _measure('default')
    assert image < 500 and tensors < 500
    assert default_image > 3000 and default_tensors > 30_000
    assert peak < default_peak + 200_000
