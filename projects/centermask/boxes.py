"""Boxes (x1, y1, x2, y2) in pixels: scale, clip, NMS, and the paper recipe's IoU."""

from __future__ import annotations

import inspect
import math

import torch
from mmcv.ops import batched_nms, nms, soft_nms
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor


def scale_factors(boxes: Tensor, meta: dict) -> Tensor:
    """Return the resize factors of an image as (sx, sy, sx, sy), to multiply boxes of the original image with.

    Args:
        boxes: a tensor of the result's type and device.
        meta: metainfo with ``scale_factor``, or without it where no step of the pipeline resizes.
    """
    return boxes.new_tensor(meta.get('scale_factor', (1.0, 1.0))).repeat(2)


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return boxes (N, 4) clipped to [0, width] × [0, height] of an image of ``image_size`` (height, width)."""
    height, width = image_size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def clip_to_image(detections: InstanceData, image_size: tuple[int, int]) -> tuple[InstanceData, Tensor]:
    """Clip the ``bboxes`` of one image's detections and drop those that are empty then.

    Args:
        detections: any number of them, N.
        image_size: height and width in pixels.

    Returns:
        The detections that remain, and their indices, shape (K,).
    """
    detections.bboxes = clip_boxes(detections.bboxes, image_size)
    kept = (detections.bboxes[:, 2:] > detections.bboxes[:, :2]).all(1).nonzero().squeeze(1)
    return detections[kept], kept


def offset_by_class(boxes: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return boxes moved apart by class, so that one NMS equals one NMS a class.

    Each class has a cell of its own in a square grid. In a row of 80 or 1200 classes, as in MMCV, coordinates grow so
    large that float32 rounds small boxes.

    Args:
        boxes: at least one in each image, shape (K, 4) or (N, K, 4).
        labels: their classes, shape (K,) or (N, K).
        num_classes: upper bound of the labels.
    """
    boxes = boxes - boxes.amin((-2, -1), keepdim=True)
    cells = math.isqrt(num_classes - 1) + 1
    offset = torch.stack([labels % cells, labels // cells], dim=-1) * (boxes.amax((-2, -1), keepdim=True) + 1)
    return boxes + torch.cat([offset, offset], dim=-1)


def check_nms(cfg: dict | None) -> None:
    """Check ``test_cfg.nms``, a config of MMCV's ``batched_nms``; None keeps all boxes.

    Raises:
        ValueError: MMCV has no such NMS for boxes, or an entry of it can't be used.
    """
    if cfg is None:
        return
    kind = cfg.get('type', 'nms')
    if kind not in ('nms', 'soft_nms'):
        raise ValueError(f"test_cfg.nms.type is 'nms' or 'soft_nms', not {kind!r}")
    parameters = inspect.signature(nms if kind == 'nms' else soft_nms).parameters
    known = {'type', 'class_agnostic', 'split_thr', *parameters} - {'boxes', 'scores'}
    if unknown := sorted(cfg.keys() - known):
        raise ValueError(f'test_cfg.nms.{unknown[0]} is no setting of {kind}, which takes {", ".join(sorted(known))}')
    allowed = {'offset': (0, 1), 'class_agnostic': (False, True), 'method': ('naive', 'linear', 'gaussian')}
    for key, values in allowed.items():
        if key in cfg and cfg[key] not in values:
            raise ValueError(f'test_cfg.nms.{key} is one of {values}, not {cfg[key]!r}')
    threshold = cfg.get('iou_threshold', parameters['iou_threshold'].default)
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f'test_cfg.nms.iou_threshold is a number from 0 to 1, not {cfg.get("iou_threshold")!r}')


def nms_of_image(
    boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, cfg: dict | None
) -> tuple[Tensor, Tensor]:
    """Return the indices of the boxes of one image that NMS keeps and their scores, by descending score.

    Args:
        boxes: shape (K, 4), K may be 0.
        scores, labels: shape (K,). Soft NMS lowers scores.
        num_classes: upper bound of the labels.
        cfg: as :func:`check_nms` takes it. Boxes of different classes don't suppress each other, unless
            ``class_agnostic``.
    """
    if not len(boxes):
        return labels, scores
    if cfg is not None:
        if not cfg.get('class_agnostic'):
            boxes = offset_by_class(boxes, labels, num_classes)
        # Without this split_thr, MMCV loops over the classes where there are many boxes.
        cfg = {**cfg, 'class_agnostic': True, 'split_thr': len(boxes) + 1}
    found, kept = batched_nms(boxes, scores, labels, cfg)
    return kept, found[:, -1]


@TASK_UTILS.register_module()
class LegacyBboxOverlaps2D:
    """IoU with widths and heights of x2 − x1 + 1 and y2 − y1 + 1 (paper recipe)."""

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = 'iou', is_aligned: bool = False) -> Tensor:
        """Return overlaps (N, M) of boxes (N, 4) and (M, 4)."""
        one = bboxes1.new_tensor([0, 0, 1, 1])
        return bbox_overlaps(bboxes1 + one, bboxes2 + one, mode, is_aligned)
