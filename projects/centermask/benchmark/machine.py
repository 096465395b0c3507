"""Name and peak FLOP/s of the benchmark machine."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch
import torch.nn.functional as F

from centermask.benchmark.rounds import timed_on

# A square matrix product, and a conv as large as a detector's (channels, height, width).
MATRIX = 2048
CONV = (256, 100, 136)
REPEATS = 5


def name_of_machine(device: str) -> str:
    """Return the GPU's name, or the processor's with the number of torch's threads."""
    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    cpuinfo = Path('/proc/cpuinfo')
    match = cpuinfo.exists() and re.search(r'^model name\s*: (.+)$', cpuinfo.read_text(), re.MULTILINE)
    return f'{match[1] if match else platform.machine()}, {threads} thread{"s" if threads > 1 else ""}'


def peak(device: str, dtype: torch.dtype) -> float:
    """Return operations a second: the best of several runs of a matrix product and of a channels-last 3 × 3 conv.

    Args:
        device, dtype: of the operands; of ``torch.int8`` there is the matrix product alone.
    """
    channels, height, width = CONV
    matrix = torch.ones(MATRIX, MATRIX, device=device, dtype=dtype)
    work = [(2 * MATRIX**3, lambda: matrix @ matrix)]
    if dtype is torch.int8:
        work = [(2 * MATRIX**3, lambda: torch._int_mm(matrix, matrix))]  # torch's int8 product has only this name
    else:
        image = torch.ones(1, *CONV, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.ones(channels, channels, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        work.append((2 * 9 * channels**2 * height * width, lambda: F.conv2d(image, weight, padding=1)))
    timed = timed_on(device)
    with torch.no_grad():
        return max(operations / timed(run) for operations, run in work for _ in range(REPEATS))
