"""The one entry to fast inference: ``forward(mode='predict')``, by which MMEngine and MMDetection predict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdet.models.detectors import BaseDetector
from mmdet.structures import OptSampleList
from torch import Tensor

from centermask.fast.fused_copy import FusedCopy
from centermask.fast.malloc import large_buffers_kept


class FusedInference(BaseDetector):
    """A detector that predicts with a fused copy of itself (see :mod:`.fused_layers`).

    ``predict`` of the class stays the plain network, which tests and papers are about.

    Args:
        fuse_conv_bn: whether to predict with the fused copy.
        half_precision: whether the copy computes in half precision: bfloat16 on a CPU, float16 on a GPU.
        *args, **kwargs: as the detector beside this class takes them.
    """

    def __init__(self, *args: Any, fuse_conv_bn: bool = True, half_precision: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fuse_conv_bn, self.half_precision = fuse_conv_bn, half_precision
        self.fused_copy = FusedCopy()

    def forward(self, inputs: Tensor, data_samples: OptSampleList = None, mode: str = 'tensor') -> Any:
        """Return what ``mode`` asks for; predictions come from the fused copy."""
        if mode != 'predict':
            return super().forward(inputs, data_samples, mode)
        with self.fast_inference() as detector:
            return detector.predict(inputs, data_samples)

    @contextmanager
    def fast_inference(self) -> Iterator[Any]:
        """Yield the detector to predict with, and keep the memory of large tensors meanwhile."""
        with large_buffers_kept():
            yield self.fused()

    def fused(self) -> Any:
        """Return the fused copy with the present weights; in training or with gradients the detector itself."""
        return self.fused_copy.of(self, self.half_precision) if self.fuse_conv_bn else self

    def train(self, mode: bool = True) -> FusedInference:
        """Set training or evaluation mode; the next prediction reads the weights again."""
        self.fused_copy.clear()
        return super().train(mode)
