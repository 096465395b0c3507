"""Exports for images of one size, which take a quarter of the time of exports for any size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from centermask.export import onnx as export

SIZE = (96, 128)


@contextmanager
def of_one_size() -> Iterator[None]:
    """Make the exporter write files that take one image of ``SIZE``."""
    trace = export._trace

    def fixed(graph: torch.nn.Module, inputs: tuple, dims: tuple, outputs: list[str], opset: int) -> Any:
        return trace(graph, (torch.zeros(1, 3, *SIZE), torch.tensor([SIZE])), None, outputs, opset)

    with patch.object(export, '_trace', fixed):
        yield
