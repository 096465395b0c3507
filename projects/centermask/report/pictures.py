"""Pictures of ground truth beside predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO

from centermask.report.drawing import Shown, draw_objects

PANEL_SIDE = 480
GAP = 12


def choose_images(truth: COCO, category_ids: Sequence[int], number: int) -> list[int]:
    """Ids of images that show objects, spread over the data set; those where boxes overlap come first.

    Args:
        truth: the annotations.
        category_ids: the classes that count.
        number: how many to choose, if there are as many.
    """
    overlapping: list[int] = []
    apart: list[int] = []
    for image_id in sorted(truth.imgs):
        ids = truth.getAnnIds(image_id, category_ids, iscrowd=0)
        if not ids:
            continue
        boxes = np.array([annotation['bbox'] for annotation in truth.loadAnns(ids)])
        low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
        pairs = (shared > 0).all(-1).sum() - len(boxes)
        (overlapping if pairs else apart).append(image_id)
    chosen = _spread(overlapping, number)
    return sorted(chosen + _spread(apart, number - len(chosen)))


def _spread(items: list[int], number: int) -> list[int]:
    if number >= len(items):
        return items
    return [items[i * len(items) // number] for i in range(number)]


def draw_pair(image: np.ndarray, truth: Sequence[Shown], found: Sequence[Shown]) -> np.ndarray:
    """Ground truth on the left, predictions on the right: (H', W', 3) RGB of about ``PANEL_SIDE`` a panel."""
    scale = PANEL_SIDE / max(image.shape[:2])
    panels = [draw_objects(image, truth, scale, 'Ground truth'), draw_objects(image, found, scale, 'Predictions')]
    height, width = panels[0].shape[:2]
    pair = np.full((height, 2 * width + GAP, 3), 255, np.uint8)
    pair[:, :width], pair[:, width + GAP :] = panels
    return pair
