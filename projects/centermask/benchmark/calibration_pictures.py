"""Pictures, and what a model finds in them while it is calibrated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mmcv.ops.nms import ext_module as operators_of_mmcv
from mmdet.models.dense_heads import yolact_head
from mmdet.models.detectors import TwoStageDetector
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.boxes import clip_boxes


class Found(NamedTuple):
    """What a calibrated model makes of a picture, averaged over the pictures.

    Attributes:
        candidates: scores above the threshold.
        into_nms: boxes that NMS gets in all its calls, those for region proposals too.
        detections: what reaches the mask branch.
        object_size: median of the root of a detection's area, in pixels of the original picture.
        shares: of small, medium and large detections, as COCO divides them.
    """

    candidates: float
    into_nms: float
    detections: float
    object_size: float
    shares: tuple[float, float, float]


class Picture:
    """The features of a picture, and what the heads find in them."""

    def __init__(self, model: Any, batch: dict) -> None:
        data = model.data_preprocessor(batch, False)
        self.model, self.batch, self.samples = model, batch, data['data_samples']
        self.features = model.extract_feat(data['inputs'])
        self.meta = self.samples[0].metainfo

    @property
    def side(self) -> float:
        """The root of the resized picture's area."""
        return math.sqrt(math.prod(self.meta['img_shape'][:2]))

    def propose(self) -> InstanceData:
        """Region proposals, in pixels of the resized picture."""
        return self.model.rpn_head.predict(self.features, self.samples, rescale=False)[0]

    def detect(self) -> InstanceData:
        """Detections, in pixels of the resized picture."""
        if not isinstance(self.model, TwoStageDetector):
            return self.model.bbox_head.predict(self.features, self.samples, rescale=False)[0]
        head = self.model.roi_head
        return head.predict_bbox(self.features, [self.meta], [self.propose()], head.test_cfg, rescale=False)[0]

    def count(self) -> int:
        """How many detections are left when boxes are clipped to the picture."""
        clipped = clip_boxes(self.detect().bboxes, self.meta['img_shape'][:2])
        return int((clipped[:, 2:] - clipped[:, :2] > 0.01).all(1).sum())

    def sizes(self) -> Tensor:
        """Roots of the detections' areas over that of the picture."""
        return _sides(self.detect().bboxes) / self.side

    def sizes_of_proposals(self) -> Tensor:
        """The same of region proposals."""
        return _sides(self.propose().bboxes) / self.side


def _sides(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3).prod(1).sqrt()


def look_at(pictures: Sequence[Picture], candidates: float) -> Found:
    """What comes of the pictures now."""
    sides = []
    with _count_into_nms() as into_nms:
        for picture in pictures:
            found = picture.detect()
            sides.append(_sides(found.bboxes) / math.sqrt(math.prod(picture.meta['scale_factor'])))
    every = torch.cat(sides)
    small, large = (every < 32).float().mean().item(), (every >= 96).float().mean().item()
    count = len(pictures)
    shares = (small, 1 - small - large, large)
    return Found(candidates, sum(into_nms) / count, len(every) / count, every.median().item(), shares)


@contextmanager
def _count_into_nms() -> Iterator[list[int]]:
    """Yield a list that gets the number of boxes of every NMS."""
    counts: list[int] = []
    nms, fast_nms = operators_of_mmcv.nms, yolact_head.fast_nms

    def counted(boxes: Tensor, *args: Any, **kwargs: Any) -> Any:
        counts.append(len(boxes))
        return nms(boxes, *args, **kwargs)

    def counted_fast(boxes: Tensor, scores: Tensor, coeffs: Tensor, score_thr: float, *rest: Any) -> Any:
        counts.append(int((scores[:, :-1] > score_thr).sum()))
        return fast_nms(boxes, scores, coeffs, score_thr, *rest)

    with patch.object(operators_of_mmcv, 'nms', counted), patch.object(yolact_head, 'fast_nms', counted_fast):
        yield counts
