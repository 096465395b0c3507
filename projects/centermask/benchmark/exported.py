"""Exported models among those that are timed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import DefaultScope

from centermask.benchmark.models import Settings, TimedModel, is_centermask
from centermask.benchmark.predictions import draw_objects
from centermask.export.exported_detector import ExportedCenterMask
from centermask.export.files import convert
from centermask.export.inputs import make_inputs
from centermask.export.onnx import describe, to_onnx
from centermask.export.runtime import Detections, require

RUNTIMES = ('onnxruntime', 'openvino')


def exported_variants(first: TimedModel, config: Config, settings: Settings) -> Iterator[TimedModel]:
    """Yield a CenterMask as a file of ONNX Runtime and OpenVINO; nothing of other models.

    Args:
        first: as shipped, on the CPU.
        config: of the model.
        settings: ``runtimes``; with ``amp`` OpenVINO's bfloat16 too, with ``int8`` both quantised by the first image.

    Raises:
        InputError: what exporting needs isn't installed.
    """
    model = first.model
    if not settings.runtimes or not is_centermask(model) or model.roi_head is None:
        return
    model.dataset_meta = CocoDataset.METAINFO
    # With a fixed number of detections the mask branch costs the same, whatever random weights find.
    metadata = describe(model, config, padded=True)
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / 'model.onnx'
        require('onnx').save(to_onnx(model, metadata), onnx_file)
        files = [(runtime, onnx_file, 'float32') for runtime in settings.runtimes]
        inputs = make_inputs(model, first.batches[0]['inputs'], metadata.preprocess)
        reduced = [('openvino', 'half.xml', 'bfloat16')] if settings.amp else []
        reduced += [('onnxruntime', 'int8.onnx', 'int8'), ('openvino', 'int8.xml', 'int8')] if settings.int8 else []
        for runtime, name, precision in reduced:
            if runtime in settings.runtimes:
                file = Path(folder) / name
                convert(onnx_file, file, replace(metadata, precision=file.stem), inputs)
                files.append((runtime, file, precision))
        for runtime, file, precision in files:
            test_cfg = dict(mask_format=first.masks)
            with DefaultScope.overwrite_default_scope('mmdet'):
                detector: Any = ExportedCenterMask(str(file), runtime, torch.get_num_threads(), test_cfg=test_cfg)
            detector.exported = PreparedDetections(detector.exported, settings.detections)
            variant = runtime if precision == 'float32' else f'{runtime}, {precision}'
            yield TimedModel(first.config, variant, detector, first.batches, first.masks, None, precision, runtime)


class PreparedDetections:
    """An exported model whose detections are replaced by the objects that eager models are made to find.

    Args:
        exported: the model, which runs all the same.
        detections: objects in each image.
    """

    def __init__(self, exported: Any, detections: int) -> None:
        self.exported, self.metadata = exported, exported.metadata
        self.objects = draw_objects(detections)

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> list[Detections]:
        """Run the model on images (N, 3, H, W) of sizes (N, 2) and return the objects of each."""
        return [self._replace(found, size) for found, size in zip(self.exported(images, sizes), sizes, strict=True)]

    def _replace(self, found: Detections, size: np.ndarray) -> Detections:
        count = len(self.objects.boxes)
        boxes = self.objects.boxes.numpy() * np.tile(size[::-1], 2).astype(np.float32)
        rows, columns = np.mgrid[-1:1:28j, -1:1:28j]
        masks = np.broadcast_to((1 - (rows**2 + columns**2) / 2).astype(np.float32), (count, 28, 28))
        scores = self.objects.scores.numpy()
        return found._replace(
            boxes=boxes, labels=np.zeros(count, np.int64), scores=scores, mask_scores=scores, masks=masks
        )
