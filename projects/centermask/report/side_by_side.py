"""The report's images: ground truth beside predictions."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.structures import InstanceData

from centermask.report.drawing import Canvas
from centermask.report.matching import Evaluation
from centermask.report.test_images import TestImages
from centermask.structures.rle_masks import RLEMasks


def draw_pairs(images: TestImages, evaluation: Evaluation, threshold: float, number: int, canvas: Canvas) -> list[Path]:
    """Draw images with objects, spread over the data set: ground truth on the left, predictions on the right.

    Args:
        images: of the test.
        evaluation: with its detections.
        threshold: the least score of a prediction that is drawn.
        number: how many images to draw, if there are as many.
        canvas: draws them and writes the files.

    Returns:
        The files that were written.
    """
    with_objects = [i for i in images.numbers if evaluation.truth.imgToAnns[i]]
    drawn: list[Path] = []
    for image in with_objects[:: max(1, -(-len(with_objects) // number))]:
        loaded = images.load(image)
        assert loaded is not None
        name, pixels, sample = loaded
        found = [entry for entry in evaluation.detected.imgToAnns[image] if entry['score'] >= threshold]
        sample.pred_instances = _to_instances(found, sample.img_shape)
        drawn.append(canvas.draw(f'{len(drawn) + 1:02d}_{Path(name).stem}', pixels, sample))
    return drawn


def _to_instances(found: list[dict], image_size: tuple[int, int]) -> InstanceData:
    """Return the detections on one image of a size (height, width) as instances."""
    boxes = torch.tensor([entry['bbox'] for entry in found]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([entry['category_id'] for entry in found], dtype=torch.long),
        scores=torch.tensor([entry['score'] for entry in found]),
    )
    if any('segmentation' in entry for entry in found):
        instances.masks = RLEMasks([entry['segmentation'] for entry in found], image_size)
    return instances
