"""What models are timed on: its name, and the most operations a second that it is seen to do."""

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
    """The GPU's name, or the processor's and how many threads compute."""
    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    information = Path('/proc/cpuinfo')
    found = information.exists() and re.search(r'^model name\s*: (.+)$', information.read_text(), re.MULTILINE)
    return f'{found[1] if found else platform.machine()}, {threads} thread{"s" if threads > 1 else ""}'


def peak(device: str, dtype: torch.dtype) -> float:
    """Return operations a second: the best of several runs of a matrix product and of a channels-last 3 × 3 conv.

    Args:
        device, dtype: of the operands; of ``torch.int8`` there is the matrix product alone.
    """
    side, (channels, height, width) = MATRIX, CONV
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    image, weight = (
        torch.ones(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in ((1, channels, height, width), (channels, channels, 3, 3))
    )
    timed = timed_on(device)
    best = 0.0
    if dtype is torch.int8:  # torch has its product under this name alone, and no conv
        times = [timed(lambda: torch._int_mm(matrix, matrix)) for _ in range(REPEATS)]
        return 2 * side**3 / min(times)
    with torch.no_grad():
        for _ in range(REPEATS):
            best = max(best, 2 * side**3 / timed(lambda: matrix @ matrix))
            operations = 2 * 9 * channels**2 * height * width
            best = max(best, operations / timed(lambda: F.conv2d(image, weight, padding=1)))
    return best
