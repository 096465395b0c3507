"""Prepared predictions that replace those of random weights.

The cost of post-processing and of the mask branch depends on the predictions: how many candidates exceed the score
threshold, how many boxes enter NMS, how many detections are left and how large they are. Random weights yield none or
thousands. So all models are given the same objects, with the sizes of COCO's: a box head computes its
outputs, and its ``predict_by_feat`` gets prepared logits and box deltas instead.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from centermask.boxes import scale_factors
from centermask.fcos_head import CenterMaskFCOSHead

# The square root of an object's area over that of the image's has a log-normal distribution. In images of 480 × 640 its
# parameters give COCO's parts of small (41 %, below 32² pixels), medium and large objects (24 %, from 96² on).
COCO_SIZE = 41.5 / math.sqrt(480 * 640)
COCO_SPREAD = 1.2  # standard deviation of the logarithm
ASPECT_SPREAD = 0.22  # the same of the root of width over height, in an image of 3 × 4
CANDIDATES = 6  # boxes above the threshold for each object
JITTER = 0.05  # of the candidates' sides, in sides of the object; NMS leaves one of them
LOW = -10.0  # logit of what isn't found


class Objects(NamedTuple):
    """Boxes to find, by falling score.

    Attributes:
        boxes: (M, 4), with the image's width and height as units.
        scores: (M,), from 0.95 down to 0.5.
        numbers: (M,), which object each is a candidate of.
    """

    boxes: Tensor
    scores: Tensor
    numbers: Tensor


def draw_objects(count: int, candidates: int = 1) -> Objects:
    """Return ``candidates`` boxes for each of ``count`` objects at random locations, the same at each call."""
    random = torch.Generator().manual_seed(0)
    ranks = (torch.randperm(count, generator=random) + 0.5) / count
    sizes = COCO_SIZE * (COCO_SPREAD * torch.special.ndtri(ranks)).exp()
    aspects = (ASPECT_SPREAD * torch.randn(count, generator=random)).exp() * math.sqrt(3 / 4)
    sides = torch.stack([sizes * aspects, sizes / aspects], dim=1).clamp(max=0.95)
    starts = torch.rand(count, 2, generator=random) * (1 - sides)
    boxes = torch.cat([starts, starts + sides], dim=1).repeat(candidates, 1)
    moves = (2 * torch.rand(boxes.shape, generator=random) - 1) * JITTER * sides.repeat(candidates, 2)
    moves[:count] = 0
    return Objects((boxes + moves).clamp(0, 1), torch.linspace(0.95, 0.5, len(boxes)), torch.arange(len(boxes)) % count)


class Predictions:
    """Prepared predictions for the box heads of a model.

    Args:
        model: any detector of MMDetection. Heads with anchors or points and R-CNN's are given the objects; others, such
            as DETR's, keep the predictions of their weights.
        detections: objects in each image.

    Attributes:
        candidates: boxes above the score threshold; None as long as no head was given any.
    """

    def __init__(self, model: Any, detections: int) -> None:
        self.objects = draw_objects(detections, CANDIDATES)
        self.candidates: int | None = None
        self._patches: list[tuple[Any, Callable[[Any, Any, Any], tuple]]] = []
        self._cache: dict[tuple, Any] = {}
        roi_box_head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
        if isinstance(roi_box_head, nn.ModuleList):
            roi_box_head = roi_box_head[-1]  # the last stage of a cascade
        for name in ('rpn_head', 'bbox_head'):
            head: Any = getattr(model, name, None)
            if _takes(head, 'cls_scores', 'bbox_preds') and hasattr(head, 'prior_generator'):
                objects = draw_objects(head.test_cfg['max_per_img']) if name == 'rpn_head' else self.objects
                self._patches.append((type(head), functools.partial(self._for_dense_head, objects)))
        if _takes(roi_box_head, 'rois', 'cls_scores', 'bbox_preds'):
            self._patches.append((type(roi_box_head), self._for_roi_head))

    @contextmanager
    def handed_in(self) -> Iterator[None]:
        """Let heads of the model's classes predict the objects while the block runs."""
        with ExitStack() as stack:
            for kind, prepare in self._patches:
                stack.enter_context(patch.object(kind, 'predict_by_feat', _with(prepare, kind.predict_by_feat)))
            yield

    def _for_dense_head(self, objects: Objects, head: Any, args: Sequence, kwargs: dict) -> tuple:
        """Return ``args`` with prepared logits and boxes of each level."""
        cls_scores, bbox_preds, *others = args
        meta = kwargs['batch_img_metas'][0]
        key = (type(head), meta['ori_shape'], *(level.shape for level in cls_scores), cls_scores[0].dtype)
        if key not in self._cache:  # prepared once: the time of a run must not include it
            self._cache[key] = dense_outputs(head, objects, cls_scores, bbox_preds, meta)
            if objects is self.objects:
                self.candidates = len(objects.boxes)
        return (*self._cache[key], *others), kwargs

    def _for_roi_head(self, head: Any, args: Sequence, kwargs: dict) -> tuple:
        """Return ``kwargs`` with prepared logits and box deltas of each image's RoIs."""
        key = (type(head), *(rois.shape for rois in kwargs['rois']), kwargs['batch_img_metas'][0]['ori_shape'])
        if key not in self._cache:
            names = ('rois', 'cls_scores', 'bbox_preds', 'batch_img_metas')
            images = zip(*(kwargs[name] for name in names), strict=True)
            outputs = [roi_outputs(head, self.objects, *image) for image in images]
            self._cache[key] = dict(zip(('cls_scores', 'bbox_preds'), zip(*outputs, strict=True), strict=True))
            self.candidates = len(self.objects.boxes)
        return args, kwargs | self._cache[key]


def _takes(head: Any, *names: str) -> bool:
    """Return whether a head selects boxes, by a ``bbox_coder``, from arguments that begin with these."""
    if not hasattr(head, 'bbox_coder') or not hasattr(head, 'predict_by_feat'):
        return False
    return list(inspect.signature(head.predict_by_feat).parameters)[: len(names)] == [*names]


def _with(prepare: Callable[[Any, Any, Any], tuple], predict_by_feat: Callable) -> Callable:
    @functools.wraps(predict_by_feat)
    def predict(head: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = prepare(head, args, kwargs)
        return predict_by_feat(head, *args, **kwargs)

    return predict


def dense_outputs(
    head: Any, objects: Objects, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], meta: dict
) -> tuple[list[Tensor], list[Tensor]]:
    """Return class logits and box predictions by which a head with anchors or points finds the objects.

    Args:
        head: with ``prior_generator`` and ``bbox_coder``.
        objects: to find.
        cls_scores, bbox_preds: of the head's weights, a list of levels (N, C, H, W) each. Boxes that aren't four
            numbers of each anchor or point are left as they are.
        meta: of the image.
    """
    sizes = [(level.shape[-2], level.shape[-1]) for level in cls_scores]
    generator, device = head.prior_generator, cls_scores[0].device
    priors = torch.cat(generator.grid_priors(sizes, device=device))
    centres = priors[:, :2] if priors.shape[1] == 2 else (priors[:, :2] + priors[:, 2:]) / 2  # points or anchors
    counts = [height * width * count for (height, width), count in zip(sizes, generator.num_base_priors, strict=True)]
    strides = torch.cat(
        [centres.new_full((n,), stride[0]) for n, stride in zip(counts, generator.strides, strict=True)]
    )
    objects = Objects(*(part[: len(priors)].to(device) for part in objects))
    boxes = in_pixels(objects, meta)
    indices = choose_priors(boxes, centres, strides)
    logits = priors.new_full((len(priors), head.cls_out_channels), LOW)
    if not head.use_sigmoid_cls:
        logits[:, -1] = 0  # background
    first = head.cls_out_channels - head.num_classes if head.use_sigmoid_cls else 0  # ShapeMask's 0 is the background
    logits[indices, objects.numbers % head.num_classes + first] = objects.scores.logit()
    scores = [_as_map(*level) for level in zip(logits.split(counts), cls_scores, strict=True)]
    if any(level[0].numel() != 4 * count for level, count in zip(bbox_preds, counts, strict=True)):
        return scores, [*bbox_preds]  # GFL's distributions
    deltas = priors.new_zeros(len(priors), 4)
    deltas[indices] = head.bbox_coder.encode(priors[indices], boxes)
    if isinstance(head, CenterMaskFCOSHead) and head.norm_on_bbox:  # its outputs are in strides
        deltas /= strides[:, None]
    return scores, [_as_map(*level) for level in zip(deltas.split(counts), bbox_preds, strict=True)]


def in_pixels(objects: Objects, meta: dict) -> Tensor:
    """Return the objects' boxes (M, 4) in pixels of the resized image."""
    height, width = meta['ori_shape'][:2]
    return objects.boxes * objects.boxes.new_tensor([width, height] * 2) * scale_factors(objects.boxes, meta)


def _as_map(values: Tensor, like: Tensor) -> Tensor:
    """Return values (H · W · A, C) of a level in the shape (N, A · C, H, W), type and layout of a head's output."""
    height, width = like.shape[-2:]
    return torch.empty_like(like).copy_(values.reshape(height, width, -1).permute(2, 0, 1))


def choose_priors(boxes: Tensor, centres: Tensor, strides: Tensor) -> list[int]:
    """Return an anchor or point of its own for each box: the nearest free one in the level of its size.

    Args:
        boxes: (M, 4) in pixels, at most as many as there are anchors.
        centres: (P, 2) in pixels, of all anchors.
        strides: (P,), of their levels.
    """
    chosen: list[int] = []
    for middle, side in zip(
        (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt(), strict=True
    ):
        mismatch = (side.clamp(min=1) / (8 * strides)).log().abs()
        costs = 1e4 * mismatch + (centres - middle).norm(dim=1)
        costs[chosen] = math.inf
        chosen.append(int(costs.argmin()))
    return chosen


def roi_outputs(head: Any, objects: Objects, rois: Tensor, cls_score: Tensor, bbox_pred: Any, meta: dict) -> tuple:
    """Return class logits (R, classes + 1) and box deltas by which the first RoIs (R, 5) become the objects."""
    objects = Objects(*(part[: len(rois)].to(rois.device) for part in objects))
    count = len(objects.boxes)
    labels = objects.numbers % head.num_classes
    logits = torch.full_like(cls_score, LOW)
    logits[:, -1] = 0  # background
    logits[range(count), labels] = objects.scores.logit().to(logits)
    if not isinstance(bbox_pred, Tensor):  # SABL's buckets
        return logits, bbox_pred
    boxes = in_pixels(objects, meta)
    deltas = torch.zeros_like(bbox_pred).view(len(rois), -1, 4)
    deltas[range(count), 0 if head.reg_class_agnostic else labels] = head.bbox_coder.encode(rois[:count, 1:], boxes).to(
        deltas
    )
    return logits, deltas.view_as(bbox_pred)
