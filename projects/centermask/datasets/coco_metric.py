"""COCO's AP for data sets that list their classes in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from centermask.datasets.coco_annotations import CocoAnnotations
from centermask.utils.errors import InputError

AP_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
Item = Literal[
    'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l',
    'AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000',
]  # fmt: skip


@METRICS.register_module()
class CenterMaskCocoMetric(CocoMetric):
    """``CocoMetric`` that reads files and labels as ``CenterMaskCocoDataset`` does.

    MMDetection's takes label i for the i-th category in the order of the *file*. AP is then wrong where the config
    lists the classes in another order, and AP per class is wrong where the ids in the file don't rise.

    Args:
        ann_file: Path of the COCO file with the ground truth.
        metric_items: Figures to report, MMDetection's six of AP by default.
        **kwargs: As for ``CocoMetric``.

    Raises:
        InputError: The file can't be used, see :class:`CocoAnnotations`, or lacks an image that was tested.
    """

    def __init__(self, ann_file: str, metric_items: Sequence[Item] | None = None, **kwargs: Any) -> None:
        super().__init__(metric_items=metric_items, **kwargs)
        self._coco_api = CocoAnnotations(ann_file, annotated=not self.format_only, with_masks='segm' in self.metrics)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return AP by MMDetection's names; it is 0, not absent, where nothing at all was detected."""
        for _, found in results:
            if found['img_id'] not in self._coco_api.imgs:
                raise InputError(
                    f'The annotation file {self._coco_api.path} has no image with the id {found["img_id"]}, which was '
                    'tested: set ann_file of val_evaluator and test_evaluator to that of their data.'
                )
        # COCOeval sorts the ids, and MMDetection's table of AP per class relies on that order.
        self.cat_ids = sorted(self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes']))
        scores = super().compute_metrics(results)
        if not scores and not self.format_only:
            items = self.metric_items or AP_ITEMS
            scores = {f'{metric}_{item}': 0.0 for metric in self.metrics for item in items}
        return scores

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """Write the results as COCO's JSON, with category ids for labels in the order of the config's classes."""
        category_of_label = self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes'])
        rank = np.array([self.cat_ids.index(category) for category in category_of_label])
        return super().results2json(
            [{**result, 'labels': rank[result['labels']]} for result in results], outfile_prefix
        )
