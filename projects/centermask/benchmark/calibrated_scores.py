"""The last layer for classes, changed until as many scores pass the threshold as are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from torch import Tensor

from centermask.benchmark.layers import outputs_of, standardise

SPREAD_OF_LOGITS = 2.0


class Scores:
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
        standardise(self.layer, outputs_of(self.layer, runs), SPREAD_OF_LOGITS)

    def let_through(self, count: int) -> tuple[int, list[Tensor]]:
        """Shift the layer so that this many scores a picture pass the threshold.

        Returns:
            how many do on all pictures, and by picture and level the places where any does.
        """
        margins = [self._margins(output) for output in outputs_of(self.layer, self.runs)]
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
