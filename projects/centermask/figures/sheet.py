"""Fig. 4: results on pictures, a sheet of them with masks, boxes, classes and scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from centermask.engine.inferencer import CenterMaskInferencer
from centermask.report.drawing import Shown, class_colours, draw_objects, read_image
from centermask.utils.atomic_io import atomic_write

WIDTH = 1800
GAP = 8
# As in the paper, colours tell objects apart, also those of one class.
COLOURS = class_colours(10)


def draw_sheet(
    images: Sequence[Path], inferencer: CenterMaskInferencer, path: Path, score_thr: float, columns: int
) -> list[int]:
    """Draw detections on images, in rows as wide as the sheet, into one file.

    Args:
        images: paths.
        inferencer: what detects.
        path: file to write, its ending tells the format.
        score_thr: the least score of a detection that is drawn.
        columns: images in a row.

    Returns:
        How many detections each image shows.

    Raises:
        InputError: an image can't be read.
    """
    loaded = [(image, read_image(image)) for image in images]  # a damaged one shall end this at once
    rows, counts, height = [], [], WIDTH
    progress = tqdm(total=len(images), unit='image', disable=None)
    for start in range(0, len(loaded), columns):
        members = loaded[start : start + columns]
        aspects = sum(pixels.shape[1] / pixels.shape[0] for _, pixels in members)
        # A last row that isn't full is no higher than the one before it.
        height = min(round((WIDTH - GAP * (len(members) - 1)) / aspects), height if start else WIDTH)
        row = np.full((height, WIDTH, 3), 255, np.uint8)
        left = 0
        for image, pixels in members:
            found = _detect(inferencer, image, score_thr)
            picture = draw_objects(pixels, found, height / pixels.shape[0], boxes=True)[:, : WIDTH - left]
            row[:, left : left + picture.shape[1]] = picture
            left += picture.shape[1] + GAP
            counts.append(len(found))
            progress.update()
        rows += [row, np.full((GAP, WIDTH, 3), 255, np.uint8)]
    progress.close()
    sheet = np.concatenate(rows[:-1])
    atomic_write(path, lambda aside: cv2.imwrite(str(aside), sheet[..., ::-1]))
    return counts


def _detect(inferencer: CenterMaskInferencer, image: Path, score_thr: float) -> list[Shown]:
    """What is drawn: detections by their mask score, each in a colour of its own."""
    found = inferencer(str(image))['predictions'][0]
    classes = inferencer.model.dataset_meta['classes']
    scores = found.get('mask_scores', found['scores'])
    shown: list[Shown] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if scores[i] < score_thr:
            break
        x1, y1, x2, y2 = found['bboxes'][i]
        mask = coco_mask.decode(found['masks'][i])
        label = f'{classes[found["labels"][i]]} {scores[i]:.2f}'
        shown.append(Shown(mask, (x1, y1, x2 - x1, y2 - y1), COLOURS[len(shown) % len(COLOURS)], label))
    return shown
