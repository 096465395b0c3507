"""Precision at each recall, of every class and on average, as COCO's evaluation has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from centermask.report.html import number
from centermask.report.matching import Evaluation
from centermask.report.plots import blank_figure, class_style, finish, save


def curve(evaluation: Evaluation, iou: float | None = None, label: int | None = None) -> np.ndarray:
    """Return precisions (R,) at COCO's recalls; -1 where there is no object of the class.

    Args:
        evaluation: of the test.
        iou: the least IoU; the mean over all of COCO's by default.
        label: the class; the mean over those with objects by default.
    """
    precisions = evaluation.coco.eval['precision'][..., 0, -1]  # IoU, recall, class; objects of all sizes
    if iou is not None:
        precisions = precisions[np.isclose(evaluation.coco.params.iouThrs, iou)]
    of_class = precisions.mean(axis=0)
    if label is not None:
        return of_class[:, label]
    defined = of_class[:, (of_class > -1).all(axis=0)]
    return defined.mean(axis=1) if defined.size else np.full(len(of_class), -1.0)


def draw_precision_recall(evaluation: Evaluation, classes: Sequence[str], out: Path) -> Path:
    """Draw the curves at IoU 0.5, at 0.75 and on average over 0.5, 0.55, …, 0.95."""
    recalls = evaluation.coco.params.recThrs
    titles = {0.5: 'IoU 0.50', 0.75: 'IoU 0.75', None: 'mean of IoU 0.50 to 0.95'}
    figure, plots = blank_figure(len(titles))
    for axes, (iou, title) in zip(plots, titles.items(), strict=True):
        for label in range(len(classes)):
            precisions = curve(evaluation, iou, label)
            if precisions[0] >= 0 and len(classes) > 1:
                axes.plot(recalls, precisions, **class_style(label, classes))
        mean = curve(evaluation, iou)
        if mean[0] >= 0:
            axes.plot(recalls, mean, color='black', linewidth=2, label='mean')
        ap = mean.mean() if mean[0] >= 0 else -1.0
        finish(axes, f'{title}: AP {number(ap)}', 'recall', 'precision' if iou == 0.5 else '', legend=iou == 0.5)
    return save(figure, out)
