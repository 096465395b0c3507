"""What is wrong at a score threshold: false detections and missed objects with their reasons, and confused classes."""

from __future__ import annotations

from collections.abc import Sequence
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
    false = np.flatnonzero((detections.scores >= threshold) & (detections.matched == 0))
    false = false[np.argsort(-detections.scores[false], kind='stable')]
    false_of, objects_of = _by_image(detections.images[false]), _by_image(objects.images)
    none = np.zeros(0, int)
    false_positives: list[FalsePositive] = []
    misses: list[Miss] = []
    for image in sorted({*false_of, *objects_of}):
        wrong, unfound = _errors_of_image(
            evaluation, false[false_of.get(image, none)], objects_of.get(image, none), threshold
        )
        false_positives += wrong
        misses += unfound
    false_positives.sort(key=lambda error: -error.score)
    misses.sort(key=lambda error: -error.area)
    return Errors(false_positives, misses, _confusion(evaluation, threshold, misses))


def _errors_of_image(
    evaluation: Evaluation, false: np.ndarray, objects: np.ndarray, threshold: float
) -> tuple[list[FalsePositive], list[Miss]]:
    """Return the errors on an image, from the places of its false detections and of its objects."""
    ids, scores = evaluation.detections.ids[false].tolist(), evaluation.detections.scores[false].tolist()
    labels, wanted = evaluation.detections.labels[false], evaluation.objects.labels[objects]
    found = evaluation.objects.scores[objects] >= threshold
    same = labels[:, None] == wanted[None]
    ious = _ious(evaluation, ids, evaluation.objects.ids[objects].tolist())
    image = int(evaluation.objects.images[objects[0]] if len(objects) else evaluation.detections.images[false[0]])
    false_positives = []
    for i, (number, score) in enumerate(zip(ids, scores, strict=True)):
        reason, other = _why_false(ious[i], same[i])
        about = None if other is None else int(wanted[other])
        false_positives.append(FalsePositive(number, image, score, reason, about))
    misses = []
    taken_by = _confused(ious * ~same * ~found)
    for j in np.flatnonzero(~found).tolist():
        reason, about = Reason.UNSEEN, None
        if j in taken_by:
            reason, about = Reason.CLASS, int(labels[taken_by[j]])
        elif (ious[:, j] * same[:, j] >= NEAR_IOU).any():
            reason = Reason.OUTLINE
        number = int(evaluation.objects.ids[objects[j]])
        misses.append(Miss(number, image, float(evaluation.truth.anns[number]['area']), reason, about))
    return false_positives, misses


def _confusion(evaluation: Evaluation, threshold: float, misses: Sequence[Miss]) -> np.ndarray:
    """Return the matrix of :class:`Errors`."""
    background = len(evaluation.truth.dataset['categories'])
    matrix = np.zeros((background + 1, background + 1), int)
    detections = evaluation.detections
    sure = detections.scores >= threshold
    hits = detections.labels[sure & (detections.matched > 0)]
    np.add.at(matrix, (hits, hits), 1)
    for miss in misses:
        label = evaluation.truth.anns[miss.id]['category_id']
        matrix[label, background if miss.other is None else miss.other] += 1
    columns = np.bincount(detections.labels[sure], minlength=background)
    matrix[background, :background] = columns - matrix[:, :background].sum(0)
    return matrix


def _by_image(images: np.ndarray) -> dict[int, np.ndarray]:
    """Return the places that each image has in an array, in their order."""
    order = np.argsort(images, kind='stable')
    numbers, starts = np.unique(images[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=False))


def _ious(evaluation: Evaluation, detections: Sequence[int], objects: Sequence[int]) -> np.ndarray:
    """Return IoUs (D, G) of detections and objects by their ids."""
    if not detections or not objects:
        return np.zeros((len(detections), len(objects)))
    found = [evaluation.shape(evaluation.detected.anns[i]) for i in detections]
    wanted = [evaluation.shape(evaluation.truth.anns[i]) for i in objects]
    return np.asarray(mask_utils.iou(found, wanted, [0] * len(wanted)))


def _confused(ious: np.ndarray) -> dict[int, int]:
    """Return the detection that each object is taken for, each at most once, from IoUs (D, G) that may be paired."""
    free = ious.copy()
    taken_by: dict[int, int] = {}
    for i, row in enumerate(free):
        if len(row) and row.max() >= MATCH_IOU:
            taken_by[int(row.argmax())] = i
            free[:, row.argmax()] = 0
    return taken_by


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
