"""Mean IoU of the semantic map, over "things" as one class and each stuff class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from centermask.datasets.coco_panoptic import PanopticAnnotations
from centermask.datasets.panoptic_metric import check_same_size, order_categories, read_truth
from centermask.datasets.semantic_masks import UNLABELLED, semantic_labels, semantic_map


@METRICS.register_module()
class SemanticIoU(BaseMetric):
    """``mIoU`` and the part of right pixels, ``aAcc``, of ``pred_sem_seg`` in percent.

    The truth is what the semantic PNGs hold, read from the panoptic ones. MMDetection's ``SemSegMetric`` has no class
    for all things, and needs the truth in the samples that the model is given.

    Args:
        ann_file: JSON file of the ground truth in COCO's panoptic format.
        seg_prefix: Folder of its PNGs.
        collect_device, prefix: As for every metric of MMEngine.

    Raises:
        InputError, RunError: As for :class:`PanopticQuality`.
    """

    default_prefix = 'semantic'

    def __init__(self, ann_file: str, seg_prefix: str, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device, prefix)
        self.truth = PanopticAnnotations(ann_file, seg_prefix)
        self.labels = semantic_labels(self.truth)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the labelled pixels that agree, and those of each class in the truth and in the map: (3, S + 1)."""
        order_categories(self.truth, self.dataset_meta)  # which refuses other classes
        for sample in data_samples:
            numbers, segments = read_truth(self.truth, sample)
            truth = semantic_map(numbers, segments, self.labels).astype(np.int64)
            found = sample['pred_sem_seg']['sem_seg'].squeeze(0).cpu().numpy()
            check_same_size(found, truth, self.truth.png(sample['img_id']))
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
