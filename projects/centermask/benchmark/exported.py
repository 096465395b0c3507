"""Exported models among those that are timed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import DefaultScope

from centermask.benchmark.models import Contestant
from centermask.detector import CenterMask
from centermask.export.exported_detector import ExportedCenterMask
from centermask.export.files import convert
from centermask.export.inputs import make_inputs
from centermask.export.onnx import describe, to_onnx
from centermask.export.runtime import require

RUNTIMES = ('onnxruntime', 'openvino')


def exported_ways(
    contestant: Contestant, config: Config, runtimes: Sequence[str], half: bool = False, int8: bool = False
) -> Iterator[Contestant]:
    """Yield a CenterMask as a file that is run by ONNX Runtime and OpenVINO; nothing of other models.

    Args:
        contestant: as shipped, on the CPU.
        config: that it is of.
        runtimes: of ``RUNTIMES``.
        half: whether to yield OpenVINO's bfloat16 too.
        int8: whether to yield both quantised too, by the first picture: what it does to their AP isn't asked here.

    Raises:
        InputError: what exporting needs isn't installed.
    """
    model = contestant.model
    if not runtimes or not isinstance(model, CenterMask) or model.roi_head is None:
        return
    model.dataset_meta = CocoDataset.METAINFO
    # Quantised random weights may find nothing: of a fixed number of detections the mask branch costs the same.
    metadata = describe(model, config, padded=int8)
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / 'model.onnx'
        require('onnx').save(to_onnx(model, metadata), onnx_file)
        files = [(runtime, onnx_file, 'float32') for runtime in runtimes]
        inputs = make_inputs(model, contestant.batches[0]['inputs'], metadata.preprocess)
        smaller = [('openvino', 'half.xml')] if half else []
        smaller += [('onnxruntime', 'int8.onnx'), ('openvino', 'int8.xml')] if int8 else []
        for runtime, name in smaller:
            if runtime in runtimes:
                file = Path(folder) / name
                convert(onnx_file, file, replace(metadata, precision=file.stem), inputs)
                files.append((runtime, file, 'bfloat16' if file.stem == 'half' else file.stem))
        for runtime, file, precision in files:
            settings = dict(mask_format=contestant.masks)
            with DefaultScope.overwrite_default_scope('mmdet'):
                detector = ExportedCenterMask(str(file), runtime, torch.get_num_threads(), test_cfg=settings)
            way = runtime if precision == 'float32' else f'{runtime}, {precision}'
            yield Contestant(contestant.config, way, detector, contestant.batches, contestant.masks, precision, runtime)
