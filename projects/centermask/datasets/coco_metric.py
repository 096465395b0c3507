"""COCO's AP for any ids and any order of classes, all figures of as many detections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pycocotools.mask as mask_utils
from mmdet.datasets.api_wrappers import COCO, COCOeval, COCOevalMP
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from centermask.datasets.coco_annotations import CocoAnnotations
from centermask.datasets.coco_evaluation import COCO_MAX_DETS, figure, ground_truth, index, quiet
from centermask.utils.errors import InputError

AP_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
MetricKind = Literal['bbox', 'segm']
Item = Literal[
    'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l',
    'AR@1', 'AR@10', 'AR@100', 'AR@300', 'AR@1000', 'AR_s@100', 'AR_m@100', 'AR_l@100', 'AR_s@1000', 'AR_m@1000',
    'AR_l@1000',
]  # fmt: skip


@METRICS.register_module()
class CenterMaskCocoMetric(CocoMetric):
    """``CocoMetric`` that reads files and labels as ``CenterMaskCocoDataset`` does.

    MMDetection's takes label i for the i-th category in the order of the *file*, hands the file's ids to pycocotools,
    which loses those of text and those of 19 digits, and computes AP of 100 detections an image and class, but AP50 to
    AP of large objects of 1000. Here all are of ``max_dets``. An object without an outline counts in box AP; in mask AP
    its box is a region to ignore.

    Args:
        ann_file: Path of the COCO file with the ground truth.
        metric: What to evaluate.
        metric_items: Figures to report; MMDetection's six of AP and the recall of 100 detections by default.
        **kwargs: As for ``CocoMetric``; ``classwise`` gives AP by class as ``bbox_NAME_precision`` and
            ``segm_NAME_precision``.

    Attributes:
        max_dets: The most detections an image and class that AP is of: COCO's 100, more if an image has more. The
            runner raises it to the model's ``max_per_img``.

    Raises:
        InputError: The file can't be used, see :class:`CocoAnnotations`, or lacks an image that was tested.
    """

    def __init__(
        self,
        ann_file: str,
        metric: MetricKind | Sequence[MetricKind] = 'bbox',
        metric_items: Sequence[Item] | None = None,
        **kwargs: Any,
    ) -> None:
        if 'proposal_nums' in kwargs:
            raise ValueError(
                "proposal_nums is not of use here: AP is of COCO's 100 detections an image and class, and of more "
                "where the model's test_cfg.max_per_img is higher"
            )
        super().__init__(metric=[metric] if isinstance(metric, str) else list(metric), **kwargs)
        self.max_dets = COCO_MAX_DETS
        self.metric_items = metric_items or (*AP_ITEMS, 'AR@100')
        self._coco_api = CocoAnnotations(ann_file, annotated=not self.format_only)
        self._truths: dict[str, COCO] = {}
        objects = [entry for entry in self._coco_api.dataset['annotations'] if not entry['iscrowd']]
        if not self.format_only and not objects:
            self._warn('objects', 'AP and recall')
        elif 'segm' in self.metrics and not any(entry['segmentation'] for entry in objects):
            self._warn('outlines', 'AP and recall of masks')

    def _warn(self, what: str, figures: str) -> None:
        MMLogger.get_current_instance().warning(
            f'{self._coco_api.path} has no {what} to evaluate on: {figures} will be undefined, which is written as -1.'
        )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return the figures by MMDetection's names; -1 is one that the ground truth leaves undefined."""
        predictions = [found for _, found in results]
        for found in predictions:
            if found['img_id'] not in self._coco_api.imgs:
                raise InputError(
                    f'The annotation file {self._coco_api.path} has no image with the id {found["img_id"]}, which was '
                    'tested: set ann_file of val_evaluator and test_evaluator to that of their data.'
                )
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes'])
        if self.outfile_prefix is not None:
            self.results2json(predictions, self.outfile_prefix)
        scores: dict[str, float] = {}
        if not self.format_only:
            for kind in self.metrics:
                scores.update(self._evaluate(kind, predictions))
        return scores

    def _evaluate(self, kind: str, predictions: list[dict]) -> dict[str, float]:
        """Return the figures of boxes or masks, and log them."""
        max_dets = max([self.max_dets, *(len(found['scores']) for found in predictions)])
        with quiet():
            if kind not in self._truths:
                self._truths[kind] = ground_truth(self._coco_api, self.dataset_meta['classes'], kind)
            truth = self._truths[kind]
            evaluation = (COCOevalMP if self.use_mp_eval else COCOeval)(truth, self._detected(kind, predictions), kind)
            evaluation.params.iouThrs = np.asarray(self.iou_thrs).reshape(-1)
            recalls = {int(item.partition('@')[2]) for item in self.metric_items if '@' in item}
            evaluation.params.maxDets = sorted({max_dets, *recalls})
            evaluation.evaluate()
            evaluation.accumulate()
        scores = {f'{kind}_{item}': round(figure(evaluation, item, max_dets), 3) for item in self.metric_items}
        lines = [f'{name} {value:.3f}' for name, value in scores.items()]
        logger = MMLogger.get_current_instance()
        logger.info(f'AP of at most {max_dets} detections an image and class (maxDets): {", ".join(lines)}')
        if self.classwise:
            rows = [['category', *AP_ITEMS]]
            for label, name in enumerate(self.dataset_meta['classes']):
                figures = [figure(evaluation, item, max_dets, label) for item in AP_ITEMS]
                figures = [round(figure, 3) if figure >= 0 else math.nan for figure in figures]
                scores[f'{kind}_{name}_precision'] = figures[0]
                rows.append([name, *map(str, figures)])
            logger.info(f'{kind} by class\n{AsciiTable(rows).table}')
        return scores

    def _detected(self, kind: str, predictions: list[dict]) -> COCO:
        """Return the detections in the numbering of the ground truth; an area is that of the box or of the mask."""
        objects: list[dict] = []
        numbers = {image: number for number, image in enumerate(self._coco_api.imgs)}
        for found in predictions:
            number, boxes = numbers[found['img_id']], found['bboxes'].astype(np.float64)
            boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
            fields = {'bbox': boxes.tolist(), 'score': found['scores'], 'area': boxes[:, 2] * boxes[:, 3]}
            if kind == 'segm':
                if 'masks' not in found:
                    raise InputError(
                        "metric='segm' of the evaluator needs masks and the model finds none: give 'bbox'."
                    )
                masks = [{key: mask[key] for key in ('size', 'counts')} for mask in found['masks']]
                fields |= {'segmentation': masks, 'area': [float(mask_utils.area(mask)) for mask in masks]}
                fields['score'] = found.get('mask_scores', found['scores'])
            for label, *values in zip(found['labels'].tolist(), *fields.values(), strict=True):
                known = dict(zip(fields, values, strict=True))
                objects.append(
                    {'id': len(objects) + 1, 'image_id': number, 'category_id': label, 'iscrowd': 0, **known}
                )
        return index(objects, self._truths[kind].dataset['images'], len(self.cat_ids))
