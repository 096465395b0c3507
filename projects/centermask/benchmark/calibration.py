"""Random weights that find objects as trained ones do.

What follows the network costs by what the network says: how many scores pass the threshold, how many boxes NMS gets,
how many reach the mask branch, how large they are. Random weights say nothing or everything. So the last layers of the
box heads are scaled and shifted until, on the given pictures, a few hundred scores pass, as many detections are left as
asked for, and their sizes are spread as those of COCO's objects. The test settings' thresholds stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, product
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from mmcv.ops.nms import ext_module as operators_of_mmcv
from mmdet.models.dense_heads import FCOSHead, RetinaHead, YOLACTHead, yolact_head
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from centermask.errors import InputError

# A log-normal distribution of the root of an object's area: by the shares of COCO's small objects (below 32²), 41 %,
# and large ones (above 96²), 24 %, in images of 480 × 640, its median is 41.5 pixels.
COCO_SIZE = 41.5 / math.sqrt(480 * 640)  # of the root of the image's area
COCO_SPREAD = 1.2  # standard deviation of the logarithm
# Scores that pass for each detection, and how many times as many where NMS leaves too few of them.
CANDIDATES = 6
MULTIPLES = (1, 2, 4, 8, 16, 32)
# The share of detections that is enough where none of these gives all: padding has places, and their boxes no area.
NEARLY = 0.9
SPREAD_OF_LOGITS = 2.0
# Of what a box's four numbers vary by, what they have in common and what each has of its own.
COMMON, OWN = 0.9, 0.44
STEPS = 3


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


def calibrate(model: Any, batches: Sequence[dict], detections: int) -> Found:
    """Make a model with random weights find objects on pictures.

    Args:
        model: in eval mode; changed are statistics of BN and the last layers of the box heads.
        batches: one picture each, as ``test_step`` takes them.
        detections: to find on each picture; the test settings' ``max_per_img`` should be the same.

    Raises:
        InputError: the model has a box head of another kind than FCOS, Mask R-CNN, RetinaNet and YOLACT, or NMS leaves
            too few boxes.
    """
    with torch.no_grad():
        head = _head(model)
        _normalise(model, batches)
        pictures = [_Picture(model, batch) for batch in batches]
        if isinstance(model, TwoStageDetector):
            _calibrate_proposals(model.rpn_head, pictures)
        threshold = (model.roi_head if isinstance(model, TwoStageDetector) else head).test_cfg['score_thr']
        scores = _Scores(head, threshold, [picture.detect for picture in pictures])
        for enough, multiple in product((detections, NEARLY * detections), MULTIPLES):
            passed, places = scores.let_through(multiple * CANDIDATES * detections)
            boxes = _boxes(head, [picture.detect for picture in pictures], pictures[0].side, places)
            _steer(boxes, [picture.sizes for picture in pictures])
            if min(picture.count() for picture in pictures) >= enough:
                return _look(pictures, passed / len(pictures))
    raise InputError(f'NMS leaves fewer than {detections} boxes on a picture of this size: give less by --detections.')


def _head(model: Any) -> Any:
    """The head that decides which boxes there are."""
    head = model.roi_head.bbox_head if isinstance(model, TwoStageDetector) else getattr(model, 'bbox_head', None)
    if not isinstance(head, FCOSHead | RetinaHead | YOLACTHead | ConvFCBBoxHead):
        raise InputError(
            f"A {type(model).__name__} with a {type(head).__name__} can't be timed: only models with the box heads of "
            'FCOS, Mask R-CNN, RetinaNet and YOLACT can be made to find objects with random weights.'
        )
    return head


def _normalise(model: Any, batches: Sequence[dict]) -> None:
    """Give BN the statistics of its input, layer after layer, so that features neither explode nor vanish."""

    def take_statistics(norm: Any, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        # A channel that is the same everywhere stays so, also where BN's epsilon is 0.
        norm.running_var.copy_(variance.where(variance > 1e-4 * variance.mean(), variance.new_ones(())))

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    try:
        model.extract_feat(model.data_preprocessor(batches[0], False)['inputs'])
    finally:
        for hook in hooks:
            hook.remove()


class _Picture:
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
        height, width = self.meta['img_shape'][:2]
        boxes = self.detect().bboxes
        clipped = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
        return int((clipped[:, 2:] - clipped[:, :2] > 0.01).all(1).sum())

    def sizes(self) -> Tensor:
        """Roots of the detections' areas over that of the picture."""
        return _sides(self.detect().bboxes) / self.side

    def sizes_of_proposals(self) -> Tensor:
        """The same of region proposals."""
        return _sides(self.propose().bboxes) / self.side


def _sides(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3).prod(1).sqrt()


def _look(pictures: Sequence[_Picture], candidates: float) -> Found:
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


def _inputs(layer: nn.Module, runs: Sequence[Callable]) -> list[Tensor]:
    """What a layer is given in the runs, call by call."""
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda layer, arguments: inputs.append(arguments[0]))
    try:
        for run in runs:
            run()
    finally:
        hook.remove()
    return inputs


def _outputs(layer: nn.Module, runs: Sequence[Callable]) -> list[Tensor]:
    """What a conv or linear layer gives in the runs, each call of it as (places, channels)."""
    outputs = [layer(x).float() for x in _inputs(layer, runs)]
    return [x.permute(0, 2, 3, 1).flatten(0, 2) if x.ndim == 4 else x for x in outputs]


def _standardise(layer: Any, outputs: Sequence[Tensor], spread: float = 1.0) -> None:
    """Scale and shift each channel of a layer's output to the mean 0 and this standard deviation."""
    deviation, mean = torch.std_mean(torch.cat(list(outputs)), dim=0)
    scale = spread / deviation.clamp(min=1e-12)
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
    layer.bias.copy_((layer.bias - mean) * scale)


class _Scores:
    """The layer that scores classes.

    Args:
        head: of boxes.
        threshold: of the scores that it gives.
        runs: that call the head once on each picture.
    """

    def __init__(self, head: Any, threshold: float, runs: Sequence[Callable]) -> None:
        self.runs, self.threshold = runs, threshold
        for name in ('conv_cls', 'retina_cls', 'fc_cls'):
            if hasattr(head, name):
                self.layer = getattr(head, name)
        # With softmax, the last of each place's outputs is the background.
        dense = not isinstance(head, ConvFCBBoxHead)
        sigmoid = head.use_sigmoid_cls if dense else head.loss_cls.use_sigmoid
        self.background = not sigmoid
        self.classes = head.cls_out_channels if dense else head.num_classes + int(self.background)
        _standardise(self.layer, _outputs(self.layer, runs), SPREAD_OF_LOGITS)

    def let_through(self, count: int) -> tuple[int, list[Tensor]]:
        """Shift the layer so that this many scores a picture pass the threshold.

        Returns:
            how many do on all pictures, and by picture and level the places where any does.
        """
        margins = [self._margins(output) for output in _outputs(self.layer, self.runs)]
        every = torch.cat(margins).flatten()
        last, next_one = every.topk(min(count * len(self.runs), len(every) - 1) + 1).values[-2:].tolist()
        middle = (last + next_one) / 2
        bias = self.layer.bias.view(-1, self.classes)
        if self.background:
            bias[:, -1] += middle
        else:
            bias -= middle
        passed = [margin > middle for margin in margins]
        return int(torch.cat(passed).sum()), [p.any(1).nonzero().squeeze(1) for p in passed]

    def _margins(self, output: Tensor) -> Tensor:
        """How far a class's logit may sink, or the background's rise, with the score passing: (places, classes)."""
        logits = output.reshape(-1, self.classes)
        if not self.background:
            return logits - math.log(self.threshold / (1 - self.threshold))
        objects, background = logits[:, :-1].double(), logits[:, -1:].double()
        # exp(object) / (exp(background + move) + sum of exp(objects)) > threshold
        left = objects.exp() / self.threshold - objects.exp().sum(1, keepdim=True)
        return left.clamp(min=1e-30).log() - background


class _Boxes:
    """The layer that gives boxes, four numbers each; at first with the mean 0 and the standard deviation 1."""

    def __init__(self, layer: Any, runs: Sequence[Callable]) -> None:
        _standardise(layer, _outputs(layer, runs))
        self.layer, self.weight, self.bias = layer, layer.weight.clone(), layer.bias.clone()

    def mix(self, matrix: Tensor, offset: Tensor) -> None:
        """Make the four numbers ``matrix`` (4, 4) @ the first ones + ``offset`` (4,)."""
        matrix, offset = matrix.to(self.weight), offset.to(self.weight)
        mixed = torch.einsum('ij,gjk->gik', matrix, self.weight.reshape(-1, 4, self.weight[0].numel()))
        self.layer.weight.copy_(mixed.reshape(self.weight.shape))
        self.layer.bias.copy_((self.bias.reshape(-1, 4) @ matrix.T + offset).flatten())


class _Deltas(_Boxes):
    """Shifts of an anchor or a proposal, and logarithms of what its sides are multiplied by."""

    start = 0.0

    def __init__(self, layer: Any, runs: Sequence[Callable], deviations: Sequence[float]) -> None:
        super().__init__(layer, runs)
        self.deviations = torch.tensor(deviations)

    def set(self, mean: float, spread: float) -> None:
        matrix = torch.tensor(
            [[0.1, 0, 0, 0], [0, 0.1, 0, 0], [0, 0, spread, 0], [0, 0, COMMON * spread, OWN * spread]]
        )
        offset = torch.tensor([0.0, 0, mean, mean])
        self.mix(matrix / self.deviations[:, None], offset / self.deviations)


class _Distances:
    """Distances from a place to the four sides, fitted to boxes of the wanted sizes at the places that pass.

    The features there are the most unusual ones, so a random layer's boxes would be so too. A ridge regression on the
    features of a few hundred places reaches any.

    Args:
        head: of boxes.
        runs: that call the head once on each picture.
        side: the root of a resized picture's area.
        places: by picture and level, the places with a score that passes.
    """

    def __init__(self, head: FCOSHead, runs: Sequence[Callable], side: float, places: Sequence[Tensor]) -> None:
        self.layer, self.in_strides, self.start = head.conv_reg, head.norm_on_bbox, math.log(COCO_SIZE * side)
        inputs = _inputs(self.layer, runs)
        patches = [F.unfold(x.float(), 3, padding=1)[0].T[place] for x, place in zip(inputs, places, strict=True)]
        strides = [
            torch.full((len(place),), stride) for place, stride in zip(places, cycle(head.strides), strict=False)
        ]
        self.features = torch.cat(patches).double()  # (places, channels · 9)
        self.strides = torch.cat(strides).to(self.features)
        random = torch.Generator().manual_seed(0)
        count = len(self.strides)
        ranks = (torch.randperm(count, generator=random) + 0.5) / count
        ratios = torch.randn(count, generator=random) * OWN / 2
        shares = 0.3 + 0.4 * torch.rand(2, count, generator=random)
        self.ranks, self.ratios, self.shares = (
            x.to(self.features) for x in (torch.special.ndtri(ranks), ratios, shares)
        )
        kernel = self.features @ self.features.T
        self.solution = torch.linalg.solve(
            kernel + 1e-4 * kernel.diagonal().mean() * torch.eye(count).to(kernel), self.features
        )

    def set(self, mean: float, spread: float) -> None:
        sizes = (mean + spread * self.ranks).exp()
        width, height = sizes * self.ratios.exp(), sizes / self.ratios.exp()
        left, top = self.shares * torch.stack([width, height])
        distances = torch.stack([left, top, width - left, height - top], dim=1)
        # The head multiplies by the stride, or takes the exponential.
        outputs = distances / self.strides[:, None] if self.in_strides else distances.log()
        middle = outputs.mean(0)
        self.layer.weight.copy_(((outputs - middle).T @ self.solution).view_as(self.layer.weight))
        self.layer.bias.copy_(middle)


def _boxes(head: Any, runs: Sequence[Callable], side: float, places: Sequence[Tensor]) -> Any:
    if isinstance(head, FCOSHead):
        return _Distances(head, runs, side, places)
    for name in ('conv_reg', 'retina_reg', 'fc_reg', 'rpn_reg'):
        if hasattr(head, name):
            layer = getattr(head, name)
    return _Deltas(layer, runs, head.bbox_coder.stds)


def _calibrate_proposals(head: Any, pictures: Sequence[_Picture]) -> None:
    """Give region proposals the sizes that detections are to have."""
    runs = [picture.propose for picture in pictures]
    _standardise(head.rpn_cls, _outputs(head.rpn_cls, runs), SPREAD_OF_LOGITS)
    _steer(_boxes(head, runs, pictures[0].side, ()), [picture.sizes_of_proposals for picture in pictures])


def _steer(boxes: Any, measures: Sequence[Callable[[], Tensor]]) -> None:
    """Set mean and spread of boxes until the sizes that are measured are spread as COCO's."""
    mean, spread = boxes.start, COCO_SPREAD
    for step in range(STEPS):
        boxes.set(mean, spread)
        if step < STEPS - 1:
            sizes = torch.cat([measure() for measure in measures]).log()
            mean += math.log(COCO_SIZE) - sizes.median().item()
            # Boxes have a spread of their own; borders cut off large ones.
            missing = COCO_SPREAD**2 - sizes.std().item() ** 2
            spread = math.sqrt(min(max(spread**2 + missing, 0.04), 4.0))
