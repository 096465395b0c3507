"""Costs of an image that don't depend on the time of day: FLOPs, operator calls, host waits, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from mmcv.ops import modulated_deform_conv
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.nn.modules.batchnorm import _BatchNorm
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from centermask.benchmark.counting import count
from centermask.benchmark.models import TimedModel
from centermask.benchmark.stages import Stopwatch, timed_by_stage


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters as the paper counts them: without those of BN."""
    of_norms = {id(p) for module in model.modules() if isinstance(module, _BatchNorm) for p in module.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in of_norms)


def count_flops(timed: TimedModel) -> int:
    """Return the floating-point operations of the first image, a multiplication and an addition counted as two.

    Counted are convolutions and matrix products, as the layers are written (torch doesn't know oneDNN's fused convs).
    Not counted are norms, activations, pooling (also RoIAlign), NMS and the pasting of masks. A deformable convolution
    counts as an ordinary one and the convolution of its offsets.
    """

    def plain(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        stride, padding, dilation, groups = rest[:4]
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    model = timed.model
    fused, model.fuse_conv_bn = getattr(model, 'fuse_conv_bn', False), False
    try:
        with (
            FlopCounterMode(display=False) as flops,
            patch.object(modulated_deform_conv, 'modulated_deform_conv2d', plain),  # which torch doesn't know
        ):
            timed.run(0)
    finally:
        model.fuse_conv_bn = fused
    return flops.get_total_flops()


def count_costs(timed: TimedModel) -> dict[str, Any]:
    """Return an eager model's operator calls and host waits for the first image, those of pasting, and its memory."""
    with count() as cost:
        timed.run(0)
    with count() as running:
        calls, waits = Stopwatch(lambda: running.calls), Stopwatch(lambda: running.waits)
        with timed_by_stage(timed.model, calls), timed_by_stage(timed.model, waits):
            timed.run(0)
    return {
        'calls': cost.calls,
        'calls of pasting': int(calls.seconds['pasting']),
        'waits': cost.waits,
        'waits of pasting': int(waits.seconds['pasting']),
        'waits_by_operator': dict(cost.by_operator.most_common()),
        'memory': peak_memory(lambda: timed.run(0), timed.device),
    }


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Return the peak bytes of tensors during a run, beyond those held before it (weights, the image)."""
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
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
