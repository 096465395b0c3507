"""Time of a tested model on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device

from centermask.benchmark.machine import name_of_machine
from centermask.benchmark.models import AS_SHIPPED, TimedModel, as_batches
from centermask.benchmark.rounds import measure, summary
from centermask.engine.inferencer import CenterMaskInferencer


def tested_file(cfg: Config) -> str | None:
    """Return the checkpoint or the exported file of a test's config."""
    return cfg.get('load_from') or cfg.get('model', {}).get('file')


def measure_speed(cfg: Config, images: Sequence[np.ndarray]) -> str:
    """Return a phrase with the median milliseconds of one image.

    Args:
        cfg: the test's config, which is changed.
        images: (H, W, 3) in BGR.
    """
    file = tested_file(cfg)
    if not file or not Path(file).is_file():
        return f'not measured: {file or "the checkpoint"} is not here any more'
    if 'module' in cfg.model:
        return 'not measured with test-time augmentation'
    device = get_device()
    model = CenterMaskInferencer(cfg, file, device).model
    timed = TimedModel(AS_SHIPPED, model, as_batches(cfg, images), 'rle', device, None)
    times = summary(measure({'model': timed.seconds}, len(images))['model'])
    height, width = timed.input_size
    return (
        f'{times.median:.0f} ms an image of {width}×{height} pixels, median of {len(images)} of the test, one by one '
        f'(quartiles {times.lower:.0f} and {times.upper:.0f} ms): {name_of_machine(device)}'
    )
