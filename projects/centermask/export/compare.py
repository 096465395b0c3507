"""Does an exported file find what its checkpoint finds?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from centermask.detector import CenterMask
from centermask.export.eager import Eager, run_eagerly
from centermask.export.metadata import Metadata
from centermask.export.pictures import Batch
from centermask.export.runtime import Detections, ExportedModel
from centermask.mask_pasting import paste

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


class Detection(NamedTuple):
    """A detection of one side."""

    side: Detections
    place: int  # among the side's
    whose: str  # the side's name

    @property
    def label(self) -> int:
        """Its class."""
        return int(self.side.labels[self.place])

    @property
    def score(self) -> float:
        """Its score."""
        return self.side.scores[self.place]

    def __str__(self) -> str:
        box = ', '.join(f'{value:.1f}' for value in self.side.boxes[self.place])
        return f'class {self.label} at ({box}) with score {self.score:.4f}'


class Image:
    """One image: what the checkpoint and the file find in it, and why they may differ.

    Args:
        eager: of the checkpoint.
        found: by the file.
        test_cfg: the model's.
    """

    def __init__(self, eager: Eager, found: Detections, test_cfg: Mapping) -> None:
        self.eager = eager
        self.found = found
        self.test_cfg = test_cfg
        self.sides = [
            [Detection(side, i, whose) for i in range(len(side.boxes))]
            for side, whose in ((eager.found, 'the checkpoint'), (found, 'the file'))
        ]

    def compare(self, result: Comparison) -> None:
        """Add what the two sides have in common and what they differ in."""
        pairs = _pairs(self.eager.found, self.found)
        result.matched += len(pairs)
        for i, j in pairs:
            self._compare_pair(result, i, j)
        expected, found = self.sides
        alone = [one for one in expected if one.place not in {i for i, _ in pairs}]
        alone += [one for one in found if one.place not in {j for _, j in pairs}]
        self._explain(result, alone)

    def _explain(self, result: Comparison, pending: list[Detection]) -> None:
        """Divide detections of one side alone into allowed ones and wrong ones."""
        explained: list[Detection] = []
        while pending:  # what one of them suppresses, or what takes its place, is explained by it
            left = []
            for one in pending:
                why = self._reason(one, explained)
                if why:
                    explained.append(one)
                    result.allowed.append(f'only {one.whose} has {one}: {why}')
                else:
                    left.append(one)
            if len(left) == len(pending):
                result.wrong += [f'only {one.whose} has {one}' for one in left]
                return
            pending = left

    def _compare_pair(self, result: Comparison, i: int, j: int) -> None:
        expected, found = self.eager.found, self.found
        differences = [
            float(np.abs(a[i].astype(np.float64) - b[j]).max(initial=0)) for a, b in zip(expected, found, strict=True)
        ]
        box, score, mask = differences[0], max(differences[2:4]), differences[4]
        if expected.masks.dtype == bool:  # in the image's pixels: a mean, since some lie at the threshold
            mask = float((expected.masks[i] != found.masks[j].astype(bool)).mean())
        result.boxes, result.scores = max(result.boxes, box), max(result.scores, score)
        result.masks = max(result.masks, mask)
        if not (score <= SCORES and mask <= MASKS):
            result.wrong.append(f'{self.sides[0][i]} has scores {score:.1e} and masks {mask:.1e} apart')

    def _reason(self, one: Detection, explained: Sequence[Detection]) -> str:
        """Why a detection may be one side's alone, or nothing."""
        eager = self.eager
        place = self._location(one)
        if place is None:
            return ''
        if abs(float(eager.class_scores[place, one.label]) - self.test_cfg['score_thr']) <= MARGIN:
            return 'its class score lies at the threshold'
        limit = self.test_cfg['max_per_img']
        if abs(float(one.score) - eager.last_score) <= MARGIN:
            return f'its score lies at that of the last of {limit}'
        threshold = self.test_cfg['nms']['iou_threshold']
        for other in (*self.sides[0], *self.sides[1]):
            near = self._location(other) if other.label == one.label else None
            if near is not None and near != place and abs(self._iou(place, near) - threshold) <= MARGIN:
                return f"its IoU with another lies at NMS's {threshold}"
        for other in explained:
            near = self._location(other)
            if near is None:
                continue
            if other.label == one.label and self._iou(place, near) > threshold - MARGIN:
                return 'it overlaps such a one'
            if eager.last_score >= 0 and one.score <= other.score:
                return f'such a one takes its place among the {limit}'
        return ''

    def _location(self, one: Detection) -> int | None:
        """The location that predicts a detection's box, by the class score where several do."""
        box = torch.from_numpy(one.side.boxes[one.place])
        near = ((self.eager.clipped - box).abs().amax(1) <= BOXES).nonzero().squeeze(1)
        if not len(near):
            return None
        return int(near[self.eager.class_scores[near, one.label].argmax()])

    def _iou(self, place: int, other: int) -> float:
        """Of the boxes of two locations, as NMS sees it."""
        a, b = self.eager.boxes[place], self.eager.boxes[other]
        offset = self.test_cfg['nms'].get('offset', 0)
        sides = torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2]) + offset
        inter = float(sides.clamp(min=0).prod())
        areas = float((a[2:] - a[:2] + offset).prod() + (b[2:] - b[:2] + offset).prod())
        return inter / max(areas - inter, 1e-9)


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


def compare(model: CenterMask, exported: ExportedModel, batches: Sequence[Batch]) -> Comparison:
    """Compare what the model and a file made of it find; masks in the images' pixels may differ in a few of them."""
    result = Comparison()
    for batch in batches:
        found = exported(**batch.inputs(exported.metadata.preprocess))
        for eager, of_file in zip(run_eagerly(model, batch.network, batch.sizes), found, strict=True):
            if exported.metadata.full_masks:
                eager.found = eager.found._replace(masks=_pasted(eager.found, of_file, exported.metadata))
            Image(eager, of_file, model.test_cfg).compare(result)
    return result


def _pasted(eager: Detections, of_file: Detections, metadata: Metadata) -> np.ndarray:
    """Masks in the pixels of the file's; where it has an image of none, of an image of one pixel."""
    size = of_file.masks.shape[1:] if len(of_file.masks) else (1, 1)
    return paste(eager.masks, eager.boxes, size, metadata.mask_threshold, metadata.pasting)
