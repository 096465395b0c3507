"""COCO's evaluation for any ids: images by their number in the file, classes by their label."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval

from centermask.datasets.coco_annotations import CocoAnnotations, box_outline, outline_rle

COCO_MAX_DETS = 100
AREAS = {'': 'all', 's': 'small', 'm': 'medium', 'l': 'large'}


def ground_truth(annotations: CocoAnnotations, classes: Sequence[str], kind: str) -> COCO:
    """Return a file's objects of some classes, with labels for categories and numbers for images.

    An object without an outline is a region to ignore among masks.

    Args:
        annotations: of the file.
        classes: names, by label.
        kind: ``'bbox'`` or ``'segm'``; only the latter has outlines (RLE).
    """
    images = [
        {'id': number, 'height': int(image['height']), 'width': int(image['width'])}
        for number, image in enumerate(annotations.imgs.values())
    ]
    numbers = {image: number for number, image in enumerate(annotations.imgs)}
    labels = {category: label for label, category in enumerate(annotations.get_cat_ids(cat_names=classes))}
    objects = []
    for entry in annotations.dataset['annotations']:
        if entry['category_id'] not in labels:
            continue
        number = numbers[entry['image_id']]
        known = {key: entry[key] for key in ('id', 'bbox', 'area', 'iscrowd')}
        objects.append({**known, 'image_id': number, 'category_id': labels[entry['category_id']]})
        if kind == 'segm':
            height, width = images[number]['height'], images[number]['width']
            outline = entry['segmentation'] or box_outline(entry['bbox'], height, width)
            objects[-1]['segmentation'] = outline_rle(outline, height, width)
            if not entry['segmentation']:
                objects[-1]['iscrowd'] = 1
    return index(objects, images, len(labels))


def quiet() -> contextlib.redirect_stdout:
    """Return a context in which pycocotools' steps, which it prints, aren't seen."""
    return contextlib.redirect_stdout(io.StringIO())


def index(objects: list[dict], images: list[dict], classes: int) -> COCO:
    """Return pycocotools' index of objects or detections whose categories are labels."""
    indexed = COCO()
    indexed.dataset = {'images': images, 'annotations': objects, 'categories': [{'id': i} for i in range(classes)]}
    with quiet():
        indexed.createIndex()
    return indexed


def figure(evaluation: COCOeval, item: str, max_dets: int, label: int | None = None) -> float:
    """Return AP or recall as MMDetection names it, -1 where there is no object to find.

    Args:
        evaluation: Its results: precision by IoU, recall, class, area and limit; recall by IoU, class, area and limit.
        item: ``mAP`` or ``AR``, then ``_50`` or ``_75`` for one IoU or ``_s``, ``_m``, ``_l`` for one size of objects,
            then ``@`` and a limit of detections.
        max_dets: The limit for an item that names none.
        label: The class; the mean over all by default.
    """
    name, _, limit = item.partition('@')
    name, _, part = name.partition('_')
    params = evaluation.params
    values = evaluation.eval['precision' if name == 'mAP' else 'recall']
    values = values[..., params.areaRngLbl.index(AREAS.get(part, 'all')), params.maxDets.index(int(limit or max_dets))]
    if part.isdigit():
        values = values[np.isclose(params.iouThrs, int(part) / 100)]
    if label is not None:
        values = values[..., label]
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0
