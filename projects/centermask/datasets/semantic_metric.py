"""Mean IoU of the semantic map, over "things" as one class and each stuff class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from centermask.datasets.panoptic_truth import PanopticTruthMetric
from centermask.datasets.semantic_masks import UNLABELLED, semantic_labels, semantic_map


@METRICS.register_module()
class SemanticIoU(PanopticTruthMetric):
    """``mIoU`` and the part of right pixels, ``aAcc``, of ``pred_sem_seg`` in percent.

    The truth is what the semantic PNGs hold, read from the panoptic ones. MMDetection's ``SemSegMetric`` has no class
    for all things, and needs the truth in the samples that the model is given.

    Args: of :class:`PanopticTruthMetric`.

    Raises:
        InputError, RunError: As there.
    """

    default_prefix = 'semantic'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.labels = semantic_labels(self.truth)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the labelled pixels that agree, and those of each class in the truth and in the map: (3, S + 1)."""
        for sample in data_samples:
            found, numbers, segments = self.read(sample, 'pred_sem_seg')
            truth = semantic_map(numbers, segments, self.labels).astype(np.int64)
            count = len(self.truth.stuff) + 1
            pairs = np.bincount((truth * count + found).reshape(-1), minlength=(UNLABELLED + 1) * count)
            labelled = pairs.reshape(-1, count)[:count]
            self.results.append(np.stack([labelled.diagonal(), labelled.sum(1), labelled.sum(0)]))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return the figures; -1 is one of no labelled pixel."""
        right, truth, found = np.sum(results, axis=0)
        unions = truth + found - right
        ious = right[unions > 0] / unions[unions > 0]
        scores = {'mIoU': -1.0, 'aAcc': -1.0}
        if len(ious):
            scores = {'mIoU': float(100 * ious.mean()), 'aAcc': float(100 * right.sum() / truth.sum())}
        logger = MMLogger.get_current_instance()
        logger.info(f'Semantic IoU of {len(ious)} classes: {", ".join(f"{k} {v:.2f}" for k, v in scores.items())}')
        return scores
