"""Box and mask AP of COCO result files, per class too."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from centermask.datasets.coco_annotations import LARGEST, is_number
from centermask.datasets.rle import run_lengths
from centermask.utils.errors import InputError

# What COCOeval measures, as (name, IoU threshold or None for the mean of ten, index of the object size).
FIGURES = (
    ('AP', None, 0),
    ('AP50', 0.5, 0),
    ('AP75', 0.75, 0),
    ('AP small', None, 1),
    ('AP medium', None, 2),
    ('AP large', None, 3),
)


@dataclass
class Evaluation:
    """Average precision of one kind of result, in [0, 1]; NaN where there is nothing to find.

    Attributes:
        figures: the names of ``FIGURES`` -> value.
        per_class: class name -> AP over IoU 0.50 to 0.95.
    """

    figures: dict[str, float]
    per_class: dict[str, float]


def read_results(path: Path, truth: COCO, category_ids: Sequence[int]) -> list[dict]:
    """Detections from a result file, which must speak of the images of ``truth`` and of these categories.

    Raises:
        InputError: there is no such file, or it belongs to another data set.
    """
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f'{path} can not be read ({error.strerror}): test first, with its outfile_prefix.') from error
    except (RecursionError, ValueError) as error:
        raise InputError(f'{path} is not valid JSON ({error}): test again.') from error
    if not isinstance(results, list):
        raise InputError(f'{path} is no COCO result file: it must hold a list of detections.')
    for i, result in enumerate(results):
        if wrong := _wrong_field(result):
            raise InputError(f'{path} is no COCO result file: entry {i} has no valid "{wrong}".')
    for key, known, what in (('image_id', truth.imgs, 'image'), ('category_id', category_ids, 'category')):
        unknown = {result[key] for result in results} - set(known)
        if unknown:
            raise InputError(
                f'{path} has detections of {what} {min(unknown)}, which the config and the annotation file '
                'do not have: name the files of one test.'
            )
    for i, result in enumerate(results):
        image = truth.imgs[result['image_id']]
        if 'segmentation' in result and list(result['segmentation']['size']) != [image['height'], image['width']]:
            raise InputError(
                f'{path}: the mask of entry {i} is not of the size of its image: name the files of one test.'
            )
    return results


def _wrong_field(result: Any) -> str | None:
    """The first field of a detection that is absent or no such thing; None if all are as they should be."""
    given = result if isinstance(result, dict) else {}
    for key in ('image_id', 'category_id', 'score'):
        value = given.get(key)
        if not (is_number(value, LARGEST) or (key == 'image_id' and isinstance(value, str))):
            return key
    box, mask = given.get('bbox'), given.get('segmentation')
    is_box = isinstance(box, list) and len(box) == 4 and all(is_number(value, LARGEST) for value in box)
    if not is_box and (mask is None or box is not None):
        return 'bbox'
    if mask is not None:
        try:
            run_lengths(mask)
        except ValueError:
            return 'segmentation'
    return None


def evaluate(truth: COCO, results: Sequence[dict], kind: str, category_ids: Sequence[int]) -> Evaluation:
    """Average precision with COCO's own code.

    Args:
        truth: the annotations.
        results: detections with ``score`` and ``bbox`` (kind ``'bbox'``) or ``segmentation`` (kind ``'segm'``).
        kind: what is compared.
        category_ids: the classes that count.
    """
    found = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        if results:
            # Sizes of masks are measured on masks, which loadRes does only where there is no box.
            drop = 'bbox' if kind == 'segm' else 'segmentation'
            found = truth.loadRes([{key: value for key, value in result.items() if key != drop} for result in results])
        else:
            found.dataset = dict(images=truth.dataset['images'], categories=truth.dataset['categories'], annotations=[])
            found.createIndex()
        run = COCOeval(truth, found, kind)
        run.params.catIds = list(category_ids)
        run.evaluate()
        run.accumulate()
    precision = run.eval['precision'][..., -1]  # IoU, recall, class, size of object

    def mean(values: np.ndarray) -> float:
        # -1 stands where there is no object to find.
        return float(values[values > -1].mean()) if (values > -1).any() else math.nan

    thresholds = run.params.iouThrs
    return Evaluation(
        figures={
            name: mean(precision[slice(None) if iou is None else np.isclose(thresholds, iou), :, :, size])
            for name, iou, size in FIGURES
        },
        per_class={truth.cats[c]['name']: mean(precision[:, :, i, 0]) for i, c in enumerate(run.params.catIds)},
    )
