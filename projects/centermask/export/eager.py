"""What a checkpoint finds, and what decided it, to compare an exported file with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from centermask.boxes import clip_to_image
from centermask.detector import CenterMask
from centermask.export.runtime import Detections


@dataclass
class Eager:
    """What a checkpoint finds in one image, before pasting, and what decided it."""

    found: Detections
    boxes: Tensor  # (P, 4) of all locations, as they go into NMS
    clipped: Tensor  # (P, 4), the same clipped to the image, as detections are
    class_scores: Tensor  # (P, classes)
    last_score: float  # of the last detection that NMS kept, if it kept as many as it may, else −1


@torch.no_grad()
def run_eagerly(model: CenterMask, images: Tensor, sizes: np.ndarray) -> list[Eager]:
    """Run the model as tools/test.py does.

    Args:
        model: in eval mode, on the CPU.
        images: normalised and padded, (N, 3, H, W).
        sizes: height and width without padding, (N, 2).
    """
    fast = model.fused()
    samples = [
        DetDataSample(metainfo={'img_shape': tuple(size), 'ori_shape': tuple(size), 'scale_factor': (1.0, 1.0)})
        for size in sizes.tolist()
    ]
    x = fast.extract_feat(images)
    head = fast.bbox_head
    maps = head(x)
    metas = [sample.metainfo for sample in samples]
    detections = head.predict_by_feat(*maps, batch_img_metas=metas)
    masks = fast.roi_head(x, [image.bboxes for image in detections], [image.labels for image in detections], metas)
    results = []
    counts = [len(detected) for detected in detections]
    everywhere = zip(*(_decoded(head, *level) for level in zip(*maps, head.strides, strict=True)), strict=True)
    boxes, class_scores = (torch.cat(levels, dim=1) for levels in everywhere)
    ious = masks.ious if masks.ious is not None else torch.ones(sum(counts))
    parts = zip(detections, masks.logits.sigmoid().split(counts), ious.split(counts), sizes, strict=True)
    for i, (detected, probabilities, iou, size) in enumerate(parts):
        detected.mask_scores = detected.scores * iou
        detected.masks = probabilities
        all_boxes = boxes[i]
        full = len(detected) >= model.test_cfg['max_per_img']
        last_score = float(detected.scores.min()) if full else -1.0
        limits = all_boxes.new_tensor([size[1], size[0]] * 2) - (1 if head.legacy_boxes else 0)
        clipped = torch.minimum(all_boxes.clamp(min=0), limits)
        if head.legacy_boxes:  # clipped before NMS
            all_boxes = clipped
        else:
            detected = clip_to_image(detected, tuple(size))[0]
        names = ('bboxes', 'labels', 'scores', 'mask_scores', 'masks')
        found = Detections(*(detected[name].numpy() for name in names))
        results.append(Eager(found, all_boxes, clipped, class_scores[i], last_score))
    return results


def _decoded(head: torch.nn.Module, logits: Tensor, distances: Tensor, _: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Boxes (N, P, 4) in pixels and class scores (N, P, classes) of all locations of a level."""
    height, width = logits.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    points = (torch.stack([x, y], dim=2).flatten(0, 1) + 0.5) * stride
    distances = distances.permute(0, 2, 3, 1).flatten(1, 2) * (stride if head.norm_on_bbox else 1)
    boxes = torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=2)
    return boxes, logits.sigmoid().permute(0, 2, 3, 1).flatten(1, 2)
