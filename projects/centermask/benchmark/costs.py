"""Costs of an image that don't depend on the time of day: parameters, FLOPs, operator calls, host waits."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch.nn.functional as F
from mmcv.ops import modulated_deform_conv
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
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

    Counted are convolutions and matrix products, as the layers are written (torch doesn't know oneDNN's fused convs);
    YOLACT's product of prototypes and coefficients is one. Not counted are norms, activations, pooling (also RoIAlign),
    NMS and the pasting of masks. A deformable convolution counts as an ordinary one and the convolution of its offsets.
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
            timed.run()
    finally:
        model.fuse_conv_bn = fused
    return flops.get_total_flops()


def count_costs(timed: TimedModel) -> dict[str, Any]:
    """Return an eager model's operator calls and host waits for the first image, and those of pasting."""
    with count() as cost:
        calls, waits = Stopwatch(lambda: cost.calls), Stopwatch(lambda: cost.waits)
        with timed_by_stage(timed.model, calls), timed_by_stage(timed.model, waits):
            timed.run()
    return {
        'calls': cost.calls,
        'calls of pasting': int(calls.seconds['pasting']),
        'waits': cost.waits,
        'waits of pasting': int(waits.seconds['pasting']),
        'waits_by_operator': dict(cost.by_operator.most_common()),
    }
