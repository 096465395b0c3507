"""AP of every class by size of its objects, and its best score threshold."""

from __future__ import annotations

from collections.abc import Sequence

from centermask.datasets.coco_evaluation import figure
from centermask.report.html import UNDEFINED, number, shade
from centermask.report.matching import KINDS, Evaluation
from centermask.report.score_threshold import best, curve

ITEMS = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75', 'small': 'mAP_s', 'medium': 'mAP_m', 'large': 'mAP_l'}


def class_head(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the names of the columns: figures of the first kind of results, and AP of the others."""
    first, *others = (KINDS[evaluation.kind] for evaluation in evaluations)
    figures = [f'{first} AP', *list(ITEMS)[1:]]
    return ['class', 'objects', *figures, *(f'{kind} AP' for kind in others), 'best F1', 'at score']


def class_rows(evaluations: Sequence[Evaluation], classes: Sequence[str]) -> list[list[str]]:
    """Return a row for all classes and one for each."""
    return [_row(evaluations, name, label) for label, name in [(None, 'all'), *enumerate(classes)]]


def _row(evaluations: Sequence[Evaluation], name: str, label: int | None) -> list[str]:
    first, *others = evaluations
    objects = first.objects.labels
    top = best(curve(first, label))
    return [
        name,
        str(len(objects) if label is None else int((objects == label).sum())),
        *(shade(figure(first.coco, item, first.max_dets, label)) for item in ITEMS.values()),
        *(shade(figure(other.coco, 'mAP', other.max_dets, label)) for other in others),
        number(top.f1) if top else UNDEFINED,
        number(top.score, 2) if top else UNDEFINED,
    ]
