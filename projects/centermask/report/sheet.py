"""Fig. 4: a sheet of images with the masks, boxes, classes and scores of their detections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.utils import track_iter_progress

from centermask.engine.inferencer import CenterMaskInferencer
from centermask.utils.atomic_io import atomic_write
from centermask.utils.errors import InputError

WIDTH = 1800
GAP = 8


def draw_sheet(
    images: Sequence[Path], inferencer: CenterMaskInferencer, path: Path, score_thr: float, columns: int
) -> list[int]:
    """Draw detections on images, in rows as wide as the sheet, into one file.

    Args:
        images: paths.
        inferencer: the detector.
        path: file to write, its ending decides the format.
        score_thr: detections of a higher score are drawn.
        columns: images in a row.

    Returns:
        The number of detections on each image.

    Raises:
        InputError: an image can't be read.
    """
    for image in images:  # before the first detection
        if cv2.imread(str(image)) is None:
            raise InputError(f'{image} is missing or no image: name images that can be read.')
    drawn, counts = [], []
    for image in track_iter_progress(list(images)):
        results = inferencer(str(image), return_vis=True, pred_score_thr=score_thr)
        drawn.append(results['visualization'][0])
        counts.append(sum(score > score_thr for score in results['predictions'][0]['scores']))
    rows = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
    sheet = np.concatenate([_row(members, len(members) < columns and len(rows) > 1, columns) for members in rows])
    atomic_write(path, lambda aside: cv2.imwrite(str(aside), sheet[:-GAP, :, ::-1]))
    return counts


def _row(images: Sequence[np.ndarray], is_short: bool, columns: int) -> np.ndarray:
    """Return images (H, W, 3) side by side at one height, WIDTH wide, with a gap below; a short row isn't enlarged."""
    aspects = sum(image.shape[1] / image.shape[0] for image in images) * (columns / len(images) if is_short else 1)
    height = round((WIDTH - GAP * ((columns if is_short else len(images)) - 1)) / aspects)
    row = np.full((height + GAP, WIDTH, 3), 255, np.uint8)
    left = 0
    for image in images:
        width = round(image.shape[1] * height / image.shape[0])
        interpolation = cv2.INTER_CUBIC if height > image.shape[0] else cv2.INTER_AREA
        resized = cv2.resize(image, (width, height), interpolation=interpolation)[:, : WIDTH - left]
        row[:height, left : left + resized.shape[1]] = resized
        left += width + GAP
    return row
