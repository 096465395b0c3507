"""Images of the report: drawn by the project's visualizer, and small enough for one page."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from mmdet.structures import DetDataSample

from centermask.structures.visualizer import CenterMaskVisualizer

QUALITY = 85  # of JPEG


class Canvas:
    """Draws ground truth on the left and detections on the right of images, into files of a folder.

    Args:
        metainfo: Of the data set, with its classes.
        folder: For the files.
        sides: The least and the greatest number of pixels of an image's longer side.
    """

    def __init__(self, metainfo: dict, folder: Path, sides: tuple[int, int]) -> None:
        self._visualizer = CenterMaskVisualizer(name=f'report {sides}', sides=sides)
        self._visualizer.dataset_meta = metainfo
        self._folder = folder

    def draw(self, name: str, image: np.ndarray, sample: DetDataSample) -> Path:
        """Draw a sample with ground truth and detections on an RGB image (H, W, 3), and return the file."""
        self._visualizer.add_datasample('', image, sample, pred_score_thr=0)
        path = self._folder / f'{name}.jpg'
        cv2.imwrite(str(path), self._visualizer.get_image()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return path
