"""Does an exported file find what its checkpoint finds?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from centermask.deploy.metadata import Metadata
from centermask.deploy.pictures import Batch
from centermask.deploy.runtime import Detections, ExportedModel
from centermask.detector import CenterMask
from centermask.mask_pasting import paste
from centermask.roi_head import clip_to_image

BOXES, SCORES, MASKS = 1e-2, 1e-4, 1e-3  # pixels, and differences of probabilities
MARGIN = 1e-4  # how near a score or an IoU lies to the value that decides


@dataclass
class Comparison:
    """What the two found in some images.

    Args:
        matched: pairs of detections that have the same class and box.
        boxes, scores, masks: the largest differences among these, ``scores`` of mask scores as well.
        allowed: detections of one side alone that a difference within the margin explains.
        wrong: the others, and pairs that differ too much, a sentence each.
    """

    matched: int = 0
    boxes: float = 0.0
    scores: float = 0.0
    masks: float = 0.0
    allowed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f'{self.matched} detections: boxes within {self.boxes:.1e} pixels, scores {self.scores:.1e}, '
            f'masks {self.masks:.1e}',
            *(f'may differ: {text}' for text in self.allowed),
            *(f'differs: {text}' for text in self.wrong),
        ]
        return '\n'.join(lines)


@dataclass
class Eager:
    """What a checkpoint finds in one image, before pasting, and what decided it."""

    found: Detections
    boxes: Tensor  # (P, 4) of all locations, as they go into NMS
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
    fast = model.for_testing()
    samples = [
        DetDataSample(metainfo={'img_shape': tuple(size), 'ori_shape': tuple(size), 'scale_factor': (1.0, 1.0)})
        for size in sizes.tolist()
    ]
    x = fast.extract_feat(images)
    head = fast.bbox_head
    maps = head(x)
    detections = head.predict_by_feat(*maps, batch_img_metas=[sample.metainfo for sample in samples])
    masks = fast.roi_head(x, detections, samples)
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
        if head.plus_one:
            limits = all_boxes.new_tensor([size[1], size[0]] * 2) - 1
            all_boxes = torch.minimum(all_boxes.clamp(min=0), limits)
        else:
            detected = clip_to_image(detected, tuple(size))[0]
        names = ('bboxes', 'labels', 'scores', 'mask_scores', 'masks')
        found = Detections(*(detected[name].numpy() for name in names))
        results.append(Eager(found, all_boxes, class_scores[i], last_score))
    return results


def _decoded(head: torch.nn.Module, logits: Tensor, distances: Tensor, _: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Boxes (N, P, 4) in pixels and class scores (N, P, classes) of all locations of a level."""
    height, width = logits.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    points = (torch.stack([x, y], dim=2).flatten(0, 1) + 0.5) * stride
    distances = distances.permute(0, 2, 3, 1).flatten(1, 2) * (stride if head.norm_on_bbox else 1)
    boxes = torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=2)
    return boxes, logits.sigmoid().permute(0, 2, 3, 1).flatten(1, 2)


def compare(model: CenterMask, exported: ExportedModel, batches: Sequence[Batch]) -> Comparison:
    """Compare what the model and a file made of it find; masks in the images' pixels may differ in a few of them."""
    result = Comparison()
    for batch in batches:
        found = exported(**batch.inputs(exported.metadata.preprocess))
        for eager, of_file, size in zip(
            run_eagerly(model, batch.network, batch.sizes), found, batch.sizes.tolist(), strict=True
        ):
            if exported.metadata.full_masks:
                eager.found = eager.found._replace(masks=_pasted(eager.found, of_file, exported.metadata))
            _compare_image(result, model, eager, of_file, tuple(size))
    return result


def _pasted(eager: Detections, of_file: Detections, metadata: Metadata) -> np.ndarray:
    """Masks in the pixels of the file's; where it has an image of none, of an image of one pixel."""
    size = of_file.masks.shape[1:] if len(of_file.masks) else (1, 1)
    return paste(eager.masks, eager.boxes, size, metadata.mask_threshold, metadata.pasting)


def _compare_image(
    result: Comparison, model: CenterMask, eager: Eager, found: Detections, size: tuple[int, int]
) -> None:
    expected = eager.found
    pairs = _pairs(expected, found)
    result.matched += len(pairs)
    for i, j in pairs:
        differences = [
            float(np.abs(a[i].astype(np.float64) - b[j]).max(initial=0)) for a, b in zip(expected, found, strict=True)
        ]
        box, score, mask = differences[0], max(differences[2:4]), differences[4]
        if expected.masks.dtype == bool:  # in the image's pixels: a mean, since some lie at the threshold
            mask = float((expected.masks[i] != found.masks[j].astype(bool)).mean())
        result.boxes, result.scores = max(result.boxes, box), max(result.scores, score)
        result.masks = max(result.masks, mask)
        if not (score <= SCORES and mask <= MASKS):
            result.wrong.append(f'{_named(expected, i)} has scores {score:.1e} and masks {mask:.1e} apart')
    alone = [(expected, i, 'the checkpoint') for i in range(len(expected.boxes)) if i not in {i for i, _ in pairs}]
    alone += [(found, j, 'the file') for j in range(len(found.boxes)) if j not in {j for _, j in pairs}]
    explained: list[tuple[Detections, int]] = []
    pending = alone
    while pending:  # what one of them suppresses, or what takes its place, is explained by it
        left = []
        for side, i, whose in pending:
            why = _reason(model, eager, found, side, i, size, explained)
            if why:
                explained.append((side, i))
                result.allowed.append(f'only {whose} has {_named(side, i)}: {why}')
            else:
                left.append((side, i, whose))
        if len(left) == len(pending):
            result.wrong += [f'only {whose} has {_named(side, i)}' for side, i, whose in left]
            return
        pending = left


def _named(side: Detections, i: int) -> str:
    box = ', '.join(f'{value:.1f}' for value in side.boxes[i])
    return f'class {side.labels[i]} at ({box}) with score {side.scores[i]:.4f}'


def _pairs(expected: Detections, found: Detections) -> list[tuple[int, int]]:
    """Detections of the same class and box: the nearest scores first, each once."""
    if not len(expected.boxes) or not len(found.boxes):
        return []
    far = np.abs(expected.boxes[:, None] - found.boxes[None]).max(2) > BOXES
    far |= expected.labels[:, None] != found.labels[None]
    cost = np.abs(expected.scores[:, None] - found.scores[None])
    pairs, used = [], (set(), set())  # type: tuple[list, tuple[set, set]]
    for place in np.argsort(cost, axis=None, kind='stable'):
        i, j = divmod(int(place), len(found.boxes))
        if not far[i, j] and i not in used[0] and j not in used[1]:
            pairs.append((i, j))
            used[0].add(i)
            used[1].add(j)
    return pairs


def _reason(
    model: CenterMask,
    eager: Eager,
    found: Detections,
    side: Detections,
    i: int,
    size: tuple[int, int],
    explained: list[tuple[Detections, int]],
) -> str:
    """Why a detection may be one side's alone, or nothing."""
    cfg = model.test_cfg
    place = _location(eager, side, i, size, model.bbox_head.plus_one)
    if place is None:
        return ''
    label = int(side.labels[i])
    if abs(float(eager.class_scores[place, label]) - cfg['score_thr']) <= MARGIN:
        return 'its class score lies at the threshold'
    limit = cfg['max_per_img']
    if abs(float(side.scores[i]) - eager.last_score) <= MARGIN:
        return f'its score lies at that of the last of {limit}'
    threshold = cfg['nms']['iou_threshold']
    offset = cfg['nms'].get('offset', 0)
    for other in (eager.found, found):
        for j in np.flatnonzero(other.labels == label).tolist():
            near = _location(eager, other, j, size, model.bbox_head.plus_one)
            if near is None or near == place:
                continue
            if abs(_iou(eager.boxes[place], eager.boxes[near], offset) - threshold) <= MARGIN:
                return f"its IoU with another lies at NMS's {threshold}"
    for other, j in explained:
        near = _location(eager, other, j, size, model.bbox_head.plus_one)
        if near is None:
            continue
        if other.labels[j] == label and _iou(eager.boxes[place], eager.boxes[near], offset) > threshold - MARGIN:
            return 'it overlaps such a one'
        if eager.last_score >= 0 and side.scores[i] <= other.scores[j]:
            return f'such a one takes its place among the {limit}'
    return ''


def _location(eager: Eager, side: Detections, i: int, size: tuple[int, int], plus_one: bool) -> int | None:
    """The location that predicts a detection's box, by the class score where several do."""
    boxes = eager.boxes
    if not plus_one:
        boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([size[1], size[0]] * 2))
    near = ((boxes - torch.from_numpy(side.boxes[i])).abs().amax(1) <= BOXES).nonzero().squeeze(1)
    if not len(near):
        return None
    return int(near[eager.class_scores[near, int(side.labels[i])].argmax()])


def _iou(a: Tensor, b: Tensor, offset: int) -> float:
    sides = torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2]) + offset
    inter = float(sides.clamp(min=0).prod())
    areas = float((a[2:] - a[:2] + offset).prod() + (b[2:] - b[:2] + offset).prod())
    return inter / max(areas - inter, 1e-9)
