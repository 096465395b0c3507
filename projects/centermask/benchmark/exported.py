"""Exported variants of a timed model."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import DefaultScope

from centermask.benchmark.models import TimedModel, Variant
from centermask.benchmark.predictions import draw_objects
from centermask.export.exported_detector import ExportedCenterMask
from centermask.export.files import convert
from centermask.export.inputs import make_inputs
from centermask.export.onnx import describe, to_onnx
from centermask.export.runtime import Detections, require

# Names of converted files. In float32 both runtimes read the ONNX file. The first image calibrates the quantisation.
CONVERTED = {
    ('openvino', 'bfloat16'): 'half.xml',
    ('onnxruntime', 'int8'): 'int8.onnx',
    ('openvino', 'int8'): 'int8.xml',
}

# ONNX model of each exported model, which its variants share.
_exported: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def export(shipped: TimedModel, config: Config, detections: int, variant: Variant) -> TimedModel:
    """Return a CenterMask as a file of ONNX Runtime or OpenVINO.

    Args:
        shipped: the model as shipped, on the CPU.
        config: of the model.
        detections: objects in each image.
        variant: with the runtime as its backend.

    Raises:
        InputError: what exporting needs isn't installed.
    """
    shipped.model.dataset_meta = CocoDataset.METAINFO
    # With a fixed number of detections the mask branch costs the same, whatever random weights find.
    metadata = describe(shipped.model, config, padded=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'model.onnx'
        if shipped.model not in _exported:
            _exported[shipped.model] = to_onnx(shipped.model, metadata)
        require('onnx').save(_exported[shipped.model], file)
        if name := CONVERTED.get((variant.backend, variant.precision)):
            source, file = file, Path(folder) / name
            inputs = make_inputs(shipped.model, shipped.batches[0]['inputs'], metadata.preprocess)
            convert(source, file, replace(metadata, precision=file.stem), inputs)
        test_cfg = dict(mask_format=shipped.masks)
        with DefaultScope.overwrite_default_scope('mmdet'):
            model: Any = ExportedCenterMask(str(file), variant.backend, torch.get_num_threads(), test_cfg=test_cfg)
    model.exported = PreparedDetections(model.exported, detections)
    return replace(shipped, variant=variant, model=model, predictions=None)


class PreparedDetections:
    """An exported model whose detections are replaced by the objects that eager models are given, too.

    Args:
        exported: the model, which runs all the same.
        detections: objects in each image.
    """

    def __init__(self, exported: Any, detections: int) -> None:
        self.exported, self.metadata = exported, exported.metadata
        objects = draw_objects(detections)
        rows, columns = np.mgrid[-1:1:28j, -1:1:28j]
        ellipse = (1 - (rows**2 + columns**2) / 2).astype(np.float32)
        self.boxes, scores = objects.boxes.numpy(), objects.scores.numpy()
        self.replaced = dict(
            labels=np.zeros(detections, np.int64),
            scores=scores,
            mask_scores=scores,
            masks=np.broadcast_to(ellipse, (detections, 28, 28)),
        )

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> list[Detections]:
        """Run the model on images (N, 3, H, W) of sizes (N, 2) and return the objects of each."""
        return [
            found._replace(boxes=self.boxes * np.tile(size[::-1], 2).astype(np.float32), **self.replaced)
            for found, size in zip(self.exported(images, sizes), sizes, strict=True)
        ]
