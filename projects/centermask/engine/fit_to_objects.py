"""Fit a config to the number and the size of the objects in own data (``--data``): limits an image, and image size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config

from centermask.datasets.assignment import Assignment, has_fcos_head, scale_for
from centermask.datasets.coco_folder import Split

DETECTIONS = 'model.test_cfg.max_per_img'
TRAINING_DETECTIONS = 'model.train_cfg.max_per_img'
ROIS = 'model.train_cfg.sampler.num'
# Detections an image over the most objects, as some detections are false. Limits are rounded up to a multiple of 50.
SPARE, STEP = 1.25, 50
# RoIs an image take most of a training step. In the densest images a random part of the objects is enough.
DENSE = 90  # percentile of the images by their number of objects

# Images are enlarged where FCOS learns no part of more than MAX_LOST of the objects, so that it is MOST_LOST at most,
# and up to the size of the paper's (section 3.1).
MAX_LOST, MOST_LOST, MAX_AREA = 0.05, 0.005, 1333 * 800
PIPELINES = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'tta_pipeline')
SAMPLE = 200  # images


def fit_limits(cfg: Config, splits: Sequence[Split], options: Mapping[str, Any]) -> list[str]:
    """Raise the limits of detections and RoIs where images hold more objects; return lines to print.

    Args:
        cfg: a config, changed in place; limits that it lacks stay absent.
        splits: of the data.
        options: the ``--cfg-options``, whose limits stay.
    """
    counts = [len(boxes) for split in splits for boxes, _, _ in split.boxes] or [0]
    most, dense = max(counts), float(np.percentile(counts, DENSE))
    changes = []
    for key, needed, step in (
        (DETECTIONS, SPARE * most, STEP),
        (TRAINING_DETECTIONS, SPARE * most, STEP),
        (ROIS, dense, 1),
    ):
        *place, name = key.split('.')
        node: Any = cfg
        for part in place:
            node = node.get(part) or {}
        old = node.get(name)
        if isinstance(old, int) and 0 < old < needed and key not in options:
            node[name] = step * math.ceil(needed / step)
            changes.append(f'{key} {old} -> {node[name]}')
    return [f'Objects: up to {most} an image: {", ".join(changes)}.'] if changes else []


def fit_image_size(cfg: Config, train: Split, options: Mapping[str, Any]) -> list[str]:
    """Enlarge the images in training and testing where many objects are too small for FCOS; return lines to print.

    Args:
        cfg: a config, changed in place.
        train: what is trained on.
        options: the ``--cfg-options``; nothing changes where they set a step of a pipeline.
    """
    if not has_fcos_head(cfg) or any('pipeline' in key for key in options):
        return []
    assignment = Assignment(cfg)
    sample = train.boxes[:: max(1, len(train.boxes) // SAMPLE)]
    now = scale_for(assignment, sample, most_lost=1)
    if now.lost <= MAX_LOST or assignment.scale is None:
        return []
    best = scale_for(assignment, sample, MOST_LOST)
    if best.lost > now.lost / 2:  # objects covered by smaller ones are lost at any size
        return []
    found = f'{now.lost:.0%} of the objects are too small for FCOS at scale={now.scale}, {best.lost:.1%} at'
    if math.prod(best.scale) > MAX_AREA:
        return [f'Image size: {found} {best.scale}: set it in every pipeline if memory and time allow.']
    divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
    changed: list[dict] = []
    for step in _resizing_steps([cfg.get(key) for key in PIPELINES]):
        if not any(step is other for other in changed):  # the validation's may be the test's too
            changed.append(step)
            for key in {'scale', 'scales'} & {*step}:
                step[key] = _enlarge(step[key], best.factor, divisor)
    size = _enlarge(best.scale, 1, divisor)
    return [f'Image size: {found} {size}, to which training and testing now resize.']


def _resizing_steps(node: Any) -> Iterator[dict]:
    """Yield the steps of pipelines that resize to a scale, in any depth."""
    if isinstance(node, dict) and 'Resize' in str(node.get('type')):
        yield node
    elif isinstance(node, dict | list | tuple):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _resizing_steps(value)


def _enlarge(scale: Any, factor: float, divisor: int) -> Any:
    """Return a scale or a list of scales times a factor, rounded up to a multiple of what images are padded to."""
    if isinstance(scale, list | tuple):
        return type(scale)(_enlarge(value, factor, divisor) for value in scale)
    return divisor * math.ceil(scale * factor / divisor)
