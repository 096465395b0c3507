"""COCO's AP for data sets whose classes stand in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from centermask.arguments import one_of
from centermask.datasets.annotations import CocoAnnotations
from centermask.utils.errors import InputError

AP_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
ITEMS = (*AP_ITEMS, 'AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')


@METRICS.register_module()
class CenterMaskCocoMetric(CocoMetric):
    """``CocoMetric`` that takes the annotation files which ``CenterMaskCocoDataset`` takes, and its labels.

    MMDetection's own takes label i for the i-th of the classes' categories as the *file* lists them, which makes AP
    wrong where the config lists them otherwise, and its AP per class wrong where ids don't rise in the file.

    Args:
        ann_file: Path of the COCO file with the ground truth.
        **kwargs: As for ``CocoMetric``.

    Raises:
        InputError: The file can't be used, see :class:`CocoAnnotations`, or isn't that of the images tested.
        ValueError: Of the ``metric_items`` one isn't any.
    """

    def __init__(self, ann_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for item in self.metric_items or ():
            one_of(type(self).__name__, 'metric_items', item, ITEMS)
        self._coco_api = CocoAnnotations(ann_file, annotated=not self.format_only, with_masks='segm' in self.metrics)
        # COCOeval keeps the matched object's id in an array of numbers in which 0 says that there is none.
        for number, annotation in enumerate(self._coco_api.dataset['annotations'], start=1):
            annotation['id'] = number
        self._coco_api.anns = {annotation['id']: annotation for annotation in self._coco_api.dataset['annotations']}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP by MMDetection's names. Where nothing at all was detected MMDetection gives none; here it is 0."""
        for _, found in results:
            if found['img_id'] not in self._coco_api.imgs:
                raise InputError(
                    f'The annotation file {self._coco_api.path} has no image with the id {found["img_id"]}, which was '
                    'tested: set ann_file of val_evaluator and test_evaluator to that of their data.'
                )
        # COCOeval sorts the ids whatever order it is given, and the table of AP per class relies on that order.
        self.cat_ids = sorted(self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes']))
        scores = super().compute_metrics(results)
        if not scores and not self.format_only:
            items = self.metric_items or AP_ITEMS
            scores = {f'{metric}_{item}': 0.0 for metric in self.metrics for item in items}
        return scores

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """Write the results as COCO's JSON; labels that count through the config's classes become category ids."""
        category_of_label = self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes'])
        rank = np.array([self.cat_ids.index(category) for category in category_of_label])
        return super().results2json(
            [{**result, 'labels': rank[result['labels']]} for result in results], outfile_prefix
        )
