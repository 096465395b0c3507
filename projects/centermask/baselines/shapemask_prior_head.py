"""ShapeMask's shape prior: an object's first mask, a mixture of the usual shapes of its class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.model import BaseModule, normal_init
from torch import Tensor, nn

from .shapemask_outer_boxes import resample_in_outer_boxes
from .shapemask_priors import load_priors


class ShapePrior(NamedTuple):
    """The mixtures of N objects."""

    weights: Tensor  # (N, K), of the class's shapes
    masks: Tensor  # (N, 32, 32), in the outer boxes


class ShapePriorHead(BaseModule):
    """Mixture of the K shapes of a class, weighted by the features in the object's box.

    Args:
        num_classes: number of classes, without the background.
        num_priors: K, shapes of each class.
        priors: file of the shapes, read when weights are initialised; see :func:`load_priors`. None leaves shapes of 0.
        class_agnostic: whether all classes share the weights. Each still has its own shapes.
        channels: of the features.
        size: cells along each side of a mask.
    """

    priors: Tensor

    def __init__(
        self,
        num_classes: int,
        num_priors: int,
        priors: str | None,
        class_agnostic: bool,
        channels: int,
        size: int,
    ) -> None:
        super().__init__()
        self.num_classes, self.file = num_classes, priors
        self.class_agnostic = class_agnostic
        self.logits = nn.Linear(channels, num_priors * (1 if class_agnostic else num_classes + 1))
        self.register_buffer('priors', torch.zeros(num_classes + 1, num_priors, size, size))

    def init_weights(self) -> None:
        """Read the shapes, and draw the weights.

        Raises:
            InputError: the file is missing, or its shapes aren't those of this model.
        """
        super().init_weights()
        normal_init(self.logits, std=0.01)
        if self.file is not None:
            self.priors.copy_(load_priors(self.file, *self.priors.shape))

    def forward(self, features: Tensor, boxes: Tensor, outer: Tensor, classes: Tensor) -> ShapePrior:
        """Return the mixtures of N objects.

        Args:
            features: crops of the outer boxes, shape (N, C, 32, 32).
            boxes, outer: x1, y1, x2, y2 in pixels, shape (N, 4).
            classes: 0 is the background, shape (N,).
        """
        inside = resample_in_outer_boxes(torch.ones_like(features[:, 0]), boxes, outer)  # (N, 32, 32)
        pooled = (features * inside[:, None]).mean((2, 3)).to(self.logits.weight.dtype)  # (N, C)
        logits = self.logits(pooled).unflatten(1, (-1, self.priors.shape[1]))  # (N, classes, K)
        chosen = logits[:, 0] if self.class_agnostic else logits[torch.arange(len(classes)), classes]
        weights = chosen.softmax(1)
        mixture = torch.einsum('nk,nkhw->nhw', weights, self.priors[classes].to(weights.dtype))
        return ShapePrior(weights, resample_in_outer_boxes(mixture, boxes, outer))
