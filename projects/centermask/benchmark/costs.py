"""What an image costs that doesn't depend on the hour: operations, operator calls, host waits, memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from centermask.benchmark.counting import Cost, count
from centermask.benchmark.models import Contestant
from centermask.benchmark.stages import Stopwatch, timed_by_stage


class Costs(NamedTuple):
    """Of one image.

    Attributes:
        counted: operator calls and host waits.
        memory: the most bytes that tensors hold at a time beyond what is there before (weights, the picture).
    """

    counted: Cost
    memory: int


def costs_of(run: Callable[[], object], device: str) -> Costs:
    """Return what a run costs, which has run before: two more runs, eager and in this thread."""
    with count() as counted:
        run()
    return Costs(counted, peak_memory(run, device))


def pasting_of(contestant: Contestant) -> tuple[int, int]:
    """Return how many of an image's operator calls and host waits are pasting: one more run.

    MMDetection pastes mask by mask on a CPU, in chunks of masks on a GPU.
    """
    with count() as counted:
        calls, waits = Stopwatch(lambda: counted.calls), Stopwatch(lambda: counted.waits)
        with timed_by_stage(contestant.model, calls), timed_by_stage(contestant.model, waits):
            contestant.run(0)
    return int(calls.seconds['pasting']), int(waits.seconds['pasting'])


def flops_of(contestant: Contestant) -> int:
    """Return the floating-point operations of an image's convs and matrix products.

    A multiplication and an addition are two. They are counted as the layers are written: torch doesn't know those of
    oneDNN's fused convs, which a CenterMask tests with.
    """
    model = contestant.model
    folded, model.fuse_conv_bn = getattr(model, 'fuse_conv_bn', False), False
    try:
        with FlopCounterMode(display=False) as flops:
            contestant.run(0)
    finally:
        model.fuse_conv_bn = folded
    return flops.get_total_flops()


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Return the most bytes that tensors hold at a time during a run, beyond those held before it."""
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with _silent_errors(), profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    results = profiler.profiler and profiler.profiler.kineto_results
    changes = [
        (event.start_ns(), event.nbytes())
        for event in (results.events() if results else ())
        if event.name() == '[memory]' and event.device_type() == DeviceType.CPU
    ]
    held = most = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        held += change
        most = max(most, held)
    return most


@contextmanager
def _silent_errors() -> Iterator[None]:
    """Without what torch's profiler prints for tracers to read, beneath Python's ``sys.stderr``."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
