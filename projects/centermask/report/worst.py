"""Images of the worst errors: false detections of the highest scores, and the largest objects that were missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from centermask.report.drawing import Canvas
from centermask.report.errors import Errors, FalsePositive, Miss, Reason
from centermask.report.matching import Evaluation
from centermask.report.test_images import TestImages
from centermask.structures.rle_masks import RLE

SHOWN = 12
"""Errors of each kind that are drawn, at most ``AN_IMAGE`` of an image."""

AN_IMAGE = 3
CONTEXT = 0.6
"""What is shown around a box, in parts of its longer side."""

LEAST_WINDOW = 64  # pixels

Error = TypeVar('Error', FalsePositive, Miss)


class Drawn(NamedTuple):
    """An image file and its caption."""

    path: Path
    caption: str


def draw_worst(
    images: TestImages, evaluation: Evaluation, errors: Errors, threshold: float, canvas: Canvas
) -> tuple[list[Drawn], list[Drawn]]:
    """Draw the ground truth on the left and detections on the right of the worst false positives and misses.

    Args:
        images, evaluation, errors: of the test.
        threshold: the least score of the detections that are drawn.
        canvas: draws them and writes the files.

    Returns:
        Images of false positives, on which the detection stands alone beside all objects, and of misses, on which the
        object does beside all detections.
    """

    def draw_all(errors: Iterable[Error]) -> list[Drawn]:
        drawn = (_draw(images, evaluation, error, threshold, canvas) for error in _spread(errors))
        return [one for one in drawn if one]

    return draw_all(errors.false_positives), draw_all(errors.misses)


def _spread(errors: Iterable[Error]) -> list[Error]:
    """Return the first errors, few of any one image."""
    counts: dict[int, int] = {}
    chosen: list[Error] = []
    for error in errors:
        if counts.setdefault(error.image, 0) < AN_IMAGE and len(chosen) < SHOWN:
            counts[error.image] += 1
            chosen.append(error)
    return chosen


def _why(error: FalsePositive | Miss, classes: Sequence[str]) -> str:
    if error.reason is not Reason.CLASS or error.other is None:
        return error.reason.words
    return f'{"is" if isinstance(error, FalsePositive) else "taken for"} {classes[error.other]}'


def _draw(
    images: TestImages,
    evaluation: Evaluation,
    error: FalsePositive | Miss,
    threshold: float,
    canvas: Canvas,
) -> Drawn | None:
    """Draw the part of an image around an error; None if the image wasn't tested."""
    loaded = images.load(error.image)
    if loaded is None:
        return None
    name, image, _ = loaded
    if isinstance(error, FalsePositive):
        entry, figure = evaluation.detected.anns[error.id], f'score {100 * error.score:.0f}'
        found, objects = [entry], [a for a in evaluation.truth.imgToAnns[error.image] if not a['iscrowd']]
    else:
        entry, figure = evaluation.truth.anns[error.id], f'{error.area:.0f} pixels'
        found = [a for a in evaluation.detected.imgToAnns[error.image] if a['score'] >= threshold]
        objects = [entry]
    left, top, right, bottom = window(entry['bbox'], image.shape[:2])
    part = np.ascontiguousarray(image[top:bottom, left:right])
    sample = DetDataSample()
    sample.gt_instances, _ = _cut(objects, (left, top, right, bottom), evaluation.kind == 'segm')
    sample.pred_instances, scores = _cut(found, (left, top, right, bottom), evaluation.kind == 'segm')
    sample.pred_instances.scores = torch.tensor(scores)
    caption = f'{images.classes[entry["category_id"]]}, {figure}: {_why(error, images.classes)} ({name})'
    return Drawn(canvas.draw(f'{type(error).__name__}_{error.id}', part, sample), caption)


def window(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part (left, top, right, bottom) of an image of a size (height, width) around a box (x, y, w, h)."""
    x, y, width, height = box
    side = max(round(max(width, height) * (1 + 2 * CONTEXT)), LEAST_WINDOW)
    left = int(np.clip(round(x + width / 2 - side / 2), 0, max(0, size[1] - side)))
    top = int(np.clip(round(y + height / 2 - side / 2), 0, max(0, size[0] - side)))
    return left, top, min(size[1], left + side), min(size[0], top + side)


def _cut(
    entries: Sequence[dict], part: tuple[int, int, int, int], with_masks: bool
) -> tuple[InstanceData, list[float]]:
    """Return the objects or detections that reach into a part of their image, in its pixels, and their scores."""
    left, top, right, bottom = part
    boxes = np.array([e['bbox'] for e in entries], float).reshape(-1, 4)
    boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) - (left, top, left, top)
    inside = np.all((boxes[:, :2] < (right - left, bottom - top)) & (boxes[:, 2:] > 0), axis=1)
    kept = [entry for entry, reaches in zip(entries, inside.tolist(), strict=True) if reaches]
    instances = InstanceData(
        bboxes=torch.from_numpy(boxes[inside]).float(),
        labels=torch.tensor([e['category_id'] for e in kept], dtype=torch.long),
    )
    if with_masks:
        masks = [RLE(e['segmentation']).decode()[top:bottom, left:right] for e in kept]
        instances.masks = np.array(masks, bool).reshape(-1, bottom - top, right - left)
    return instances, [e['score'] for e in kept if 'score' in e]
