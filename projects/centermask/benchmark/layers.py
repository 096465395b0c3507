"""What layers are given and give in runs of their model, and layers whose outputs are made standard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def inputs_of(layer: nn.Module, runs: Sequence[Callable]) -> list[Tensor]:
    """What a layer is given in the runs, call by call."""
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda layer, arguments: inputs.append(arguments[0]))
    try:
        for run in runs:
            run()
    finally:
        hook.remove()
    return inputs


def outputs_of(layer: nn.Module, runs: Sequence[Callable]) -> list[Tensor]:
    """What a conv or linear layer gives in the runs, each call of it as (places, channels)."""
    outputs = [layer(x).float() for x in inputs_of(layer, runs)]
    return [x.permute(0, 2, 3, 1).flatten(0, 2) if x.ndim == 4 else x for x in outputs]


def standardise(layer: Any, outputs: Sequence[Tensor], spread: float = 1.0) -> None:
    """Scale and shift each channel of a layer's output to the mean 0 and this standard deviation."""
    deviation, mean = torch.std_mean(torch.cat(list(outputs)), dim=0)
    scale = spread / deviation.clamp(min=1e-12)
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
    layer.bias.copy_((layer.bias - mean) * scale)
