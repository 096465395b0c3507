"""What is wrong at a score threshold: false detections and missed objects with their reasons, and confused classes."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

import numpy as np
import pycocotools.mask as mask_utils

from centermask.report.matching import MATCH_IOU, Evaluation

NEAR_IOU = 0.1
"""The least IoU with an object of a detection that is about it at all."""


class Reason(Enum):
    """A reason why a detection is false or an object is missed, and its definition."""

    DUPLICATE = 'duplicate', 'its object is found by a detection with a higher score'
    CLASS = 'wrong class', f'IoU of at least {MATCH_IOU} with an object of another class'
    OUTLINE = 'poor localisation', f'IoU of {NEAR_IOU} to {MATCH_IOU} with an object of its class'
    BACKGROUND = 'background', 'none of these'
    UNSEEN = 'not found', 'none of these'

    def __init__(self, words: str, meaning: str) -> None:
        self.words = words
        self.meaning = meaning


class FalsePositive(NamedTuple):
    """A detection that no object counts for.

    Attributes:
        id: In the index of detections.
        image: Number.
        score: Of the detection.
        reason: Why.
        other: Label of the object that it is, for ``Reason.CLASS``.
    """

    id: int
    image: int
    score: float
    reason: Reason
    other: int | None = None


class Miss(NamedTuple):
    """An object that no detection counts for.

    Attributes:
        id: In the index of the ground truth.
        image: Number.
        area: In pixels.
        reason: Why.
        other: Label that it is detected with, for ``Reason.CLASS``.
    """

    id: int
    image: int
    area: float
    reason: Reason
    other: int | None = None


class Errors(NamedTuple):
    """Errors of the detections of at least a score.

    Attributes:
        false_positives: By descending score.
        misses: By descending area.
        confusion: Numbers (K + 1, K + 1) by the object's class and the detection's; the last is the background. A row
            sums up to the objects of a class, a column to its detections.
    """

    false_positives: list[FalsePositive]
    misses: list[Miss]
    confusion: np.ndarray


def find_errors(evaluation: Evaluation, threshold: float) -> Errors:
    """Find and explain errors among the detections of at least a score.

    COCO's matches count as found. A detection that is left, in the order of scores, is taken for the object of another
    class that is left and overlaps it most, with an IoU of at least ``MATCH_IOU``: a confusion of their classes.
    """
    detections, objects = evaluation.detections, evaluation.objects
    classes = len(evaluation.truth.dataset['categories'])
    confusion = np.zeros((classes + 1, classes + 1), int)
    hits = (detections.scores >= threshold) & (detections.matched > 0)
    np.add.at(confusion, (detections.labels[hits], detections.labels[hits]), 1)
    false = np.flatnonzero((detections.scores >= threshold) & (detections.matched == 0))
    false = false[np.argsort(-detections.scores[false], kind='stable')]
    objects_of = dict(_by_image(objects.images))
    false_of = dict(_by_image(detections.images[false]))
    false_positives, misses = [], []
    for image in sorted({*objects_of, *false_of}):
        rows, columns = false[false_of.get(image, [])], objects_of.get(image, np.zeros(0, int))
        found = objects.scores[columns] >= threshold
        same = detections.labels[rows][:, None] == objects.labels[columns][None]
        ious = _ious(evaluation, detections.ids[rows], objects.ids[columns])
        taken = _confused(ious * ~same * ~found)
        for i, row in enumerate(rows):
            reason, other = _why_false(ious[i], same[i])
            label = detections.labels[row]
            confusion[objects.labels[columns[taken[i]]] if i in taken else classes, label] += 1
            about = None if other is None else int(objects.labels[columns[other]])
            false_positives.append(
                FalsePositive(int(detections.ids[row]), image, float(detections.scores[row]), reason, about)
            )
        taken_by = {column: i for i, column in taken.items()}
        for j in np.flatnonzero(~found).tolist():
            label = objects.labels[columns[j]]
            reason, about = Reason.UNSEEN, None
            if j in taken_by:
                reason, about = Reason.CLASS, int(detections.labels[rows[taken_by[j]]])
            else:
                confusion[label, classes] += 1
                if (ious[:, j] * same[:, j] >= NEAR_IOU).any():
                    reason = Reason.OUTLINE
            number = int(objects.ids[columns[j]])
            misses.append(Miss(number, image, float(evaluation.truth.anns[number]['area']), reason, about))
    false_positives.sort(key=lambda error: -error.score)
    misses.sort(key=lambda error: -error.area)
    return Errors(false_positives, misses, confusion)


def _by_image(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each image and the positions that it has in the array, in their order."""
    order = np.argsort(images, kind='stable')
    numbers, starts = np.unique(images[order], return_index=True)
    yield from zip(numbers.tolist(), np.split(order, starts[1:]) if len(numbers) else [], strict=True)


def _ious(evaluation: Evaluation, detections: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return IoUs (D, G) of detections and objects by their ids."""
    if not len(detections) or not len(objects):
        return np.zeros((len(detections), len(objects)))
    found = [evaluation.shape(evaluation.detected.anns[i]) for i in detections.tolist()]
    wanted = [evaluation.shape(evaluation.truth.anns[i]) for i in objects.tolist()]
    return np.asarray(mask_utils.iou(found, wanted, [0] * len(wanted)))


def _confused(ious: np.ndarray) -> dict[int, int]:
    """Return pairs of a detection and an object, each at most once, from IoUs (D, G) that may be paired."""
    taken: dict[int, int] = {}
    free = ious.copy()
    for i, row in enumerate(free):
        if len(row) and row.max() >= MATCH_IOU:
            taken[i] = int(row.argmax())
            free[:, taken[i]] = 0
    return taken


def _why_false(ious: np.ndarray, same: np.ndarray) -> tuple[Reason, int | None]:
    """Return why a detection is false, and which object of another class it is.

    Args:
        ious: with the objects of its image, (G,).
        same: whether they are of its class, (G,).
    """
    own, others = ious * same, ious * ~same
    if (own >= MATCH_IOU).any():  # or it would be matched
        return Reason.DUPLICATE, None
    if (others >= MATCH_IOU).any():
        return Reason.CLASS, int(others.argmax())
    return (Reason.OUTLINE if (own >= NEAR_IOU).any() else Reason.BACKGROUND), None
