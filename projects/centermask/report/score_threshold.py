"""F1 of the detections of at least a score, and the score at which it is best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from centermask.report.matching import Evaluation
from centermask.report.plots import blank_figure, class_style, finish, save

SCORES = np.linspace(0, 1, 101)


class Curve(NamedTuple):
    """Precision, recall and F1 (their harmonic mean) by score threshold, ``SCORES``."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


class Best(NamedTuple):
    """The score with the best F1, and figures there."""

    score: float
    precision: float
    recall: float
    f1: float


def curve(evaluation: Evaluation, label: int | None = None) -> Curve | None:
    """Return the curve of a class, of all objects together by default; None without objects.

    A score at which nothing is detected has a precision of 1.
    """
    detections, objects = evaluation.detections, evaluation.objects
    chosen = np.ones(len(detections.ids), bool) if label is None else detections.labels == label
    total = len(objects.ids) if label is None else int((objects.labels == label).sum())
    if not total:
        return None

    def at_least(scores: np.ndarray) -> np.ndarray:
        return len(scores) - np.searchsorted(np.sort(scores), SCORES)

    true = at_least(detections.scores[chosen & (detections.matched > 0)])
    found = at_least(detections.scores[chosen])
    precision = np.where(found, true / np.maximum(found, 1), 1.0)
    return Curve(precision, true / total, 2 * true / (found + total))


def best(curve: Curve | None) -> Best | None:
    """Return the best threshold, the middle of several that are as good; None if nothing is ever found."""
    if curve is None or not curve.f1.any():
        return None
    places = np.flatnonzero(curve.f1 >= curve.f1.max())
    place = places[len(places) // 2]
    return Best(float(SCORES[place]), *(float(values[place]) for values in curve))


def draw_thresholds(evaluation: Evaluation, classes: Sequence[str], out: Path) -> Path:
    """Draw F1 of every class and of all objects on the left, precision and recall of all on the right."""
    figure, (left, right) = blank_figure(2)
    for label in range(len(classes)):
        if len(classes) > 1 and (of_class := curve(evaluation, label)):
            left.plot(SCORES, of_class.f1, **class_style(label, classes))
    if whole := curve(evaluation):
        left.plot(SCORES, whole.f1, color='black', linewidth=2, label='all objects')
        right.plot(SCORES, whole.precision, color='#2e7d32', label='precision')
        right.plot(SCORES, whole.recall, color='#1565c0', label='recall')
        right.plot(SCORES, whole.f1, color='black', linewidth=2, label='F1')
    if top := best(whole):
        for axes in (left, right):
            axes.axvline(top.score, color='#c62828', linewidth=1, linestyle='--', label=f'best, {top.score:.2f}')
    finish(left, 'F1', 'score threshold')
    finish(right, 'all objects', 'score threshold')
    return save(figure, out)
