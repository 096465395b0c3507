"""After some images the next takes no fresh memory."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

# Alone in a process: how many pages an image, or tensors of 160 MB, made the system clear; and the most memory, in KiB.
ALONE = """
import contextlib, resource, sys
import torch
from mmengine.registry import init_default_scope
from helpers.small_model import batch, picture, sample, small_model
from centermask.fast.malloc import large_buffers_kept

torch.set_num_threads(1)
init_default_scope('mmdet')
model, size = small_model(), (544, 736)
data = batch(model, [picture(*size)], [sample(*size)])
if sys.argv[1] == 'plain malloc':
    type(model).predict = type(model).predict.__wrapped__
    large_buffers_kept = contextlib.nullcontext

def tensors():
    with large_buffers_kept():
        return [torch.ones(10**7) for _ in range(4)]  # given up later, as results are

def used(what):
    return getattr(resource.getrusage(resource.RUSAGE_SELF), what)

with torch.no_grad():
    for run in (lambda: model.predict(*data), tensors):
        for _ in range(3):
            run()
        pages = used('ru_minflt')
        run()
        run()
        print((used('ru_minflt') - pages) // 2)
print(used('ru_maxrss'))
"""


@pytest.mark.skipif(
    sys.platform != 'linux' or not hasattr(ctypes.CDLL(None), 'mallinfo2'), reason='malloc is not glibc 2.33 or later'
)
def test_an_image_takes_no_fresh_memory() -> None:
    """Alone in a process, from the fourth image on; and the process is hardly larger than it would be."""
    done = {
        way: subprocess.run(
            [sys.executable, '-c', ALONE, way], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True
        )
        for way in ('as shipped', 'plain malloc')
    }
    image, tensors, most = map(int, done['as shipped'].stdout.split())
    fresh_image, fresh_tensors, otherwise = map(int, done['plain malloc'].stdout.split())
    assert image < 500 and tensors < 500
    assert fresh_image > 3000 and fresh_tensors > 30_000
    assert most < otherwise + 200_000
