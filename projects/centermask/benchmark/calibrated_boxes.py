"""The last layer for boxes, changed until their sizes are spread as those of COCO's objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import FCOSHead
from torch import Tensor

from centermask.benchmark.layers import inputs_of, outputs_of, standardise

# Of COCO's objects these are small (below 32² pixels), medium and large (from 96² on), in images of 480 × 640.
COCO_SHARES = (0.41, 0.35, 0.24)
# A log-normal distribution of the root of an object's area that has these shares has a median of 41.5 pixels.
COCO_SIZE = 41.5 / math.sqrt(480 * 640)  # of the root of the image's area
COCO_SPREAD = 1.2  # standard deviation of the logarithm
# Of what a box's four numbers vary by, what they have in common and what each has of its own.
COMMON, OWN = 0.9, 0.44
LIMITS = [math.log(limit / math.sqrt(480 * 640)) for limit in (32, 96)]
STEPS = 6


class _Deltas:
    """Shifts of an anchor or a proposal, and logarithms of what its sides are multiplied by.

    Args:
        layer: gives these four numbers; they are made of what it gives with the mean 0 and the standard deviation 1.
        runs: that call the layer once on each picture.
        deviations: by which the head multiplies the numbers.
    """

    start = 0.0

    def __init__(self, layer: Any, runs: Sequence[Callable], deviations: Sequence[float]) -> None:
        standardise(layer, outputs_of(layer, runs))
        self.layer, self.weight, self.bias = layer, layer.weight.clone(), layer.bias.clone()
        self.deviations = torch.tensor(deviations)

    def set(self, mean: float, spread: float) -> None:
        """Let the logarithms have this mean and standard deviation."""
        matrix = torch.tensor(
            [[0.1, 0, 0, 0], [0, 0.1, 0, 0], [0, 0, spread, 0], [0, 0, COMMON * spread, OWN * spread]]
        )
        offset = torch.tensor([0.0, 0, mean, mean])
        self._mix(matrix / self.deviations[:, None], offset / self.deviations)

    def _mix(self, matrix: Tensor, offset: Tensor) -> None:
        """Make the four numbers ``matrix`` (4, 4) @ the first ones + ``offset`` (4,)."""
        matrix, offset = matrix.to(self.weight), offset.to(self.weight)
        mixed = torch.einsum('ij,gjk->gik', matrix, self.weight.reshape(-1, 4, self.weight[0].numel()))
        self.layer.weight.copy_(mixed.reshape(self.weight.shape))
        self.layer.bias.copy_((self.bias.reshape(-1, 4) @ matrix.T + offset).flatten())


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
        inputs = inputs_of(self.layer, runs)
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
        """Let the logarithms of the roots of the boxes' areas, in pixels, have this mean and standard deviation."""
        sizes = (mean + spread * self.ranks).exp()
        width, height = sizes * self.ratios.exp(), sizes / self.ratios.exp()
        left, top = self.shares * torch.stack([width, height])
        distances = torch.stack([left, top, width - left, height - top], dim=1)
        # The head multiplies by the stride, or takes the exponential.
        outputs = distances / self.strides[:, None] if self.in_strides else distances.log()
        middle = outputs.mean(0)
        self.layer.weight.copy_(((outputs - middle).T @ self.solution).view_as(self.layer.weight))
        self.layer.bias.copy_(middle)


def boxes_of(head: Any, runs: Sequence[Callable], side: float, places: Sequence[Tensor]) -> _Deltas | _Distances:
    """Return the layer of a head that gives boxes, whose sizes can be set.

    Args:
        head: of boxes or of region proposals.
        runs: that call the head once on each picture.
        side: the root of a resized picture's area.
        places: by picture and level, the places with a score that passes; only FCOS needs them.
    """
    if isinstance(head, FCOSHead):
        return _Distances(head, runs, side, places)
    for name in ('conv_reg', 'retina_reg', 'fc_reg', 'rpn_reg'):
        if hasattr(head, name):
            layer = getattr(head, name)
    return _Deltas(layer, runs, head.bbox_coder.stds)


def steer(boxes: _Deltas | _Distances, measures: Sequence[Callable[[], Tensor]]) -> None:
    """Set mean and spread of boxes so that of the sizes that are measured about as many are small and large as COCO's.

    Boxes have a spread of their own, by the anchors or proposals that they are made of, and borders cut off large ones:
    it goes towards the two limits step by step, and back to the step that came nearest.
    """
    limits, below = torch.tensor(LIMITS), torch.tensor(COCO_SHARES[:2]).cumsum(0)
    mean, spread = boxes.start, COCO_SPREAD
    tried: list[tuple[float, float, float]] = []
    for _ in range(STEPS):
        boxes.set(mean, spread)
        sizes = torch.cat([measure() for measure in measures]).log().float().cpu()
        found = (sizes[:, None] < limits).float().mean(0)
        tried.append(((found - below).abs().sum().item(), mean, spread))
        quantiles = sizes.quantile(below)
        width, wanted = (x.diff().item() / torch.special.ndtri(below).diff().item() for x in (quantiles, limits))
        mean += (limits - quantiles).mean().item()
        spread = min(max(spread * wanted / max(width, 0.1), 0.2), 2.0)
    _, mean, spread = min(tried)
    boxes.set(mean, spread)
