"""COCO's evaluation of a test's results, and which detection it matches with which object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pycocotools.mask as mask_utils
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmengine.utils import track_iter_progress

from centermask.datasets.coco_annotations import CocoAnnotations
from centermask.datasets.coco_evaluation import COCO_MAX_DETS, ground_truth, index, quiet
from centermask.utils.errors import InputError

MATCH_IOU = 0.5
"""The least IoU of a detection and the object that it counts as."""

KINDS = {'segm': 'mask', 'bbox': 'box'}
PLURALS = {'segm': 'masks', 'bbox': 'boxes'}
"""Words for COCO's kinds of results."""


@dataclass(frozen=True)
class Detections:
    """Detections that count, in arrays; one that covers a region to ignore doesn't.

    Attributes:
        ids: In the index of detections.
        images, labels, scores: Of each.
        matched: Ids of the objects that they are, 0 for none.
    """

    ids: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    matched: np.ndarray


@dataclass(frozen=True)
class Objects:
    """Objects to find, in arrays.

    Attributes:
        ids: In the index of the ground truth.
        images, labels: Of each.
        scores: Of the detection that it is matched with, -1 without.
    """

    ids: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


class Evaluation(NamedTuple):
    """COCO's evaluation of boxes or masks.

    Attributes:
        kind: ``'segm'`` or ``'bbox'``.
        truth, detected: pycocotools' indices, with labels for categories and numbers for images.
        coco: The evaluation, with its precisions.
        max_dets: The limit of detections an image and class that it is of.
        detections, objects: What is matched with what at ``MATCH_IOU``.
    """

    kind: str
    truth: COCO
    detected: COCO
    coco: COCOeval
    max_dets: int
    detections: Detections
    objects: Objects

    def shape(self, entry: dict) -> Any:
        """Return what IoU is computed of: the mask or the box of an object or a detection."""
        return entry['segmentation' if self.kind == 'segm' else 'bbox']


def evaluate(annotations: CocoAnnotations, classes: Sequence[str], results: list[dict], kind: str) -> Evaluation:
    """Evaluate COCO results as :class:`centermask.datasets.CenterMaskCocoMetric` does.

    Classes are evaluated one after the other: pycocotools keeps a record for every class, image and size of objects,
    which is gigabytes for COCO's.

    Args:
        annotations: the ground truth.
        classes: names, by label.
        results: COCO results, whose entries are changed.
        kind: ``'segm'`` or ``'bbox'``.

    Raises:
        InputError: the results are of other data.
    """
    truth = ground_truth(annotations, classes, kind)
    detected = _index_results(annotations, classes, results, kind, truth.dataset['images'])
    whole = COCOeval(truth, detected, kind)
    max_dets = max([COCO_MAX_DETS, *map(len, detected.imgToAnns.values())])
    whole.params.maxDets = [max_dets]
    print(f'Evaluating {len(results)} {PLURALS[kind]} by class')
    parts = []
    matches: list[tuple[Detections, Objects]] = [(_columns(Detections), _columns(Objects))]
    for label in track_iter_progress(list(range(len(classes)))):
        part = COCOeval(truth, detected, kind)
        part.params.maxDets = [max_dets]
        part.params.catIds = [label]
        part.params.imgIds = np.unique([*truth.catToImgs[label], *detected.catToImgs[label]]).astype(int).tolist()
        with quiet():
            part.evaluate()
            part.accumulate()
        parts.append(part.eval)
        matches += _matches(part, label)
    print()
    whole.eval = {
        name: np.concatenate([part[name] for part in parts], axis=axis)
        for name, axis in (('precision', 2), ('scores', 2), ('recall', 1))
    }
    detections, objects = (_join(columns) for columns in zip(*matches, strict=True))
    return Evaluation(kind, truth, detected, whole, max_dets, detections, objects)


def _index_results(
    annotations: CocoAnnotations, classes: Sequence[str], results: list[dict], kind: str, images: list[dict]
) -> COCO:
    """Return pycocotools' index of results, numbered as the ground truth is."""
    numbers = {image: number for number, image in enumerate(annotations.imgs)}
    labels = {category: label for label, category in enumerate(annotations.get_cat_ids(cat_names=classes))}
    keys = {'image_id', 'category_id', 'score', 'segmentation' if kind == 'segm' else 'bbox'}
    for number, result in enumerate(results, start=1):
        if not isinstance(result, dict) or not keys <= result.keys():
            raise InputError(f'Result {number} of {kind} is not what a test writes: test again.')
        image, label = numbers.get(result['image_id']), labels.get(result['category_id'])
        if image is None or label is None:
            what = f'image {result["image_id"]}' if image is None else f'category {result["category_id"]}'
            raise InputError(
                f'The results of the test are of other data: {annotations.path} has no {what}. Test again, or name the '
                'folder of another test.'
            )
        area = mask_utils.area(result['segmentation']) if kind == 'segm' else result['bbox'][2] * result['bbox'][3]
        result.update(id=number, image_id=image, category_id=label, iscrowd=0, area=float(area))
    return index(results, images, len(labels))


def _matches(evaluation: COCOeval, label: int) -> Iterable[tuple[Detections, Objects]]:
    """Yield what COCO's evaluation of a class has matched on each image, objects of all sizes."""
    params = evaluation.params
    at = int(np.flatnonzero(np.isclose(params.iouThrs, MATCH_IOU))[0])
    for entry in evaluation.evalImgs:
        if entry is None or entry['aRng'] != params.areaRng[0]:
            continue
        counts = entry['dtIgnore'][at] == 0
        detections = Detections(
            ids=np.array(entry['dtIds'], int)[counts],
            images=np.full(counts.sum(), entry['image_id']),
            labels=np.full(counts.sum(), label),
            scores=np.array(entry['dtScores'], float)[counts],
            matched=entry['dtMatches'][at].astype(int)[counts],
        )
        counted = np.array(entry['gtIgnore'], int) == 0
        score_of = dict(zip(detections.ids.tolist(), detections.scores.tolist(), strict=True))
        objects = Objects(
            ids=np.array(entry['gtIds'], int)[counted],
            images=np.full(counted.sum(), entry['image_id']),
            labels=np.full(counted.sum(), label),
            scores=np.array([score_of.get(int(i), -1.0) for i in entry['gtMatches'][at][counted]], float),
        )
        yield detections, objects


Columns = TypeVar('Columns', Detections, Objects)


def _columns(of: type[Columns]) -> Columns:
    """Return no rows."""
    return of(**{field.name: np.zeros(0, float if field.name == 'scores' else int) for field in fields(of)})


def _join(parts: Sequence[Columns]) -> Columns:
    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
