"""Fig. 4: a sheet of images with the masks, boxes, classes and scores of their detections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.utils import track_iter_progress

from centermask.datasets.images import check_image
from centermask.engine.inferencer import CenterMaskInferencer
from centermask.utils.atomic_io import atomic_write

SIDE = 640  # pixels of the longer side of an image, which is drawn at this size
GAP = 8


def draw_sheet(
    images: Sequence[Path], inferencer: CenterMaskInferencer, path: Path, score_thr: float, columns: int
) -> list[int]:
    """Draw detections on images, in columns, into one file.

    Args:
        images: paths.
        inferencer: the detector.
        path: file to write, its ending decides the format.
        score_thr: detections of a higher score are drawn.
        columns: images in a row.

    Returns:
        The number of detections on each image.

    Raises:
        InputError: an image can't be used.
    """
    for image in images:  # before the first detection
        check_image(image, decode=True)
    inferencer.visualizer.sides = (SIDE, SIDE)
    drawn, counts = [], []
    for image in track_iter_progress(list(images)):
        results = inferencer(str(image), return_vis=True, pred_score_thr=score_thr)
        drawn.append(results['visualization'][0])
        counts.append(sum(score > score_thr for score in results['predictions'][0]['scores']))
    rows = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
    heights = [max(image.shape[0] for image in row) + GAP for row in rows]
    widths = [max(image.shape[1] for image in drawn[column::columns]) + GAP for column in range(len(rows[0]))]
    sheet = np.full((sum(heights) - GAP, sum(widths) - GAP, 3), 255, np.uint8)
    for number, image in enumerate(drawn):
        top, left = sum(heights[: number // columns]), sum(widths[: number % columns])
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    atomic_write(path, lambda aside: cv2.imwrite(str(aside), sheet[..., ::-1]))
    return counts
