"""Comparison of an exported file's detections with the checkpoint's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycocotools.mask as coco_mask
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.detector import CenterMask
from centermask.export.exported_detector import ExportedCenterMask
from centermask.export.onnx import has_deform_conv
from centermask.export.runtime import BACKENDS
from centermask.utils.errors import InputError

# Tolerances of a detection that agrees: corners in pixels, scores, and 1 − IoU of masks that differ in more pixels.
BOX, SCORE, MASK, MASK_PIXELS = 0.1, 1e-3, 0.01, 2
LEAST_AGREEMENT = 0.95  # float32's rounding may move a detection over the score threshold or NMS's


@dataclass
class Comparison:
    """Agreement of two detectors on some images.

    Args:
        total: number of detections, those of both detectors counted once.
        agreeing: number of those that agree in class, box, scores and mask.
        box, score, mask: largest deviations between detections of the same class and nearly the same box: corners in
            pixels, scores (of boxes and of masks), and 1 − IoU of the masks.
    """

    total: int = 0
    agreeing: int = 0
    box: float = 0.0
    score: float = 0.0
    mask: float = 0.0

    @property
    def agrees(self) -> bool:
        """True if at least ``LEAST_AGREEMENT`` of the detections agree."""
        return self.agreeing >= LEAST_AGREEMENT * self.total

    def __str__(self) -> str:
        return (
            f'{self.agreeing} of {self.total} detections agree; largest deviations: boxes {self.box:.1e} pixels, '
            f'scores {self.score:.1e}, 1 − IoU of masks {self.mask:.1e}'
        )

    def add(self, expected: InstanceData, found: InstanceData) -> None:
        """Add the detections of one image, masks as :class:`RLEMasks`."""
        pairs = _match(expected, found)
        self.total += len(expected) + len(found) - len(pairs)
        for i, j in pairs:
            box = float((expected.bboxes[i] - found.bboxes[j]).abs().max())
            score = max(float((a[i] - b[j]).abs()) for a, b in zip(_scores(expected), _scores(found), strict=True))
            masks = [dict(expected.masks[i]), dict(found.masks[j])]
            both, either = (int(coco_mask.area(coco_mask.merge(masks, intersect))) for intersect in (True, False))
            mask = 1 - both / either if either - both > MASK_PIXELS else 0.0
            self.agreeing += score <= SCORE and mask <= MASK
            self.box, self.score, self.mask = max(self.box, box), max(self.score, score), max(self.mask, mask)


def _scores(instances: InstanceData) -> tuple[Tensor, Tensor]:
    return instances.scores, instances.get('mask_scores', instances.scores)


def _match(expected: InstanceData, found: InstanceData) -> list[tuple[int, int]]:
    """Return pairs of detections of the same class and box; of several such, those of the nearest scores."""
    same = (expected.bboxes[:, None] - found.bboxes).abs().amax(2) <= BOX
    same &= expected.labels[:, None] == found.labels
    distances = (expected.scores[:, None] - found.scores).abs().where(same, torch.inf)
    pairs = []
    for i in range(len(expected) if len(found) else 0):
        j = int(distances[i].argmin())
        if distances[i, j] < torch.inf:
            pairs.append((i, j))
            distances[:, j] = torch.inf
    return pairs


@torch.no_grad()
def compare(model: Any, exported: Any, images: Sequence[Tensor]) -> Comparison:
    """Compare two detectors on each image alone, and on the first two together, of which the second is cropped.

    Args:
        model, exported: detectors on the CPU, in eval mode, whose ``mask_format`` is ``'rle'``.
        images: bytes (3, H, W), resized for testing.
    """
    batches = [[image] for image in images]
    if len(images) > 1:
        batches.append([images[0], images[1][:, : images[1].shape[1] * 3 // 4]])
    comparison = Comparison()
    for batch in batches:
        results = [detector.test_step(_data(batch)) for detector in (model, exported)]
        for expected, found in zip(*results, strict=True):
            comparison.add(expected.pred_instances, found.pred_instances)
    return comparison


def _data(images: Sequence[Tensor]) -> dict[str, list]:
    sizes = [tuple(image.shape[1:]) for image in images]
    metas = [dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)) for size in sizes]
    return dict(inputs=list(images), data_samples=[DetDataSample(metainfo=meta) for meta in metas])


def compare_file(
    model: CenterMask, file: Path, images: Sequence[Tensor]
) -> Iterator[tuple[str, Comparison | InputError]]:
    """Yield each runtime that can run an exported file with its comparison, or the reason why it can't run it.

    ONNX files are compared in OpenVINO too, unless they have deformable convs. Arguments as in :func:`compare`.

    Raises:
        InputError: the file's own runtime can't run it.
    """
    own = BACKENDS[file.suffix]
    for runtime in [own] if own == 'openvino' or has_deform_conv(model) else [own, 'openvino']:
        try:
            exported = ExportedCenterMask(str(file), runtime, test_cfg=dict(mask_format='rle'))
            yield runtime, compare(model, exported, images)
        except InputError as error:
            if runtime == own:
                raise
            yield runtime, error
