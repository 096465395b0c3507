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
    side, (channels, height, width) = MATRIX, CONV
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    # torch has an int8 product under this name alone, and no conv.
    work = [(2 * side**3, lambda: torch._int_mm(matrix, matrix) if dtype is torch.int8 else matrix @ matrix)]
    if dtype is not torch.int8:
        image, weight = (
            torch.ones(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
            for shape in ((1, channels, height, width), (channels, channels, 3, 3))
        )
        work.append((2 * 9 * channels**2 * height * width, lambda: F.conv2d(image, weight, padding=1)))
    timed = timed_on(device)
    with torch.no_grad():
        return max(operations / timed(run) for operations, run in work for _ in range(REPEATS))
