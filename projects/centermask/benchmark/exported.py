"""Exported models among those that are timed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import DefaultScope

from centermask.benchmark.contestants import Contestant
from centermask.deploy import quantise
from centermask.deploy.detector import ExportedCenterMask
from centermask.deploy.export import (
    describe,
    save_onnx,
    save_openvino,
    stamp,
    stamp_openvino,
    to_onnx,
    to_openvino,
)
from centermask.deploy.pictures import make_batch
from centermask.detector import CenterMask

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
        names = ('model.onnx', 'half.xml', 'int8.onnx', 'int8.xml')
        onnx_file, half_file, small_onnx_file, small_file = (Path(folder) / name for name in names)
        save_onnx(to_onnx(model, metadata), onnx_file)
        files = [(runtime, onnx_file, 'float32') for runtime in runtimes]
        if half and 'openvino' in runtimes:
            metadata.precision = 'half'
            save_openvino(to_openvino(onnx_file, metadata), half_file, half=True)
            files.append(('openvino', half_file, 'bfloat16'))
        if int8:
            metadata.precision = 'int8'
            inputs = [make_batch(model, contestant.batches[0]['inputs']).inputs(metadata.preprocess)]
            if 'onnxruntime' in runtimes:
                quantised = quantise.int8_onnx(onnx_file, inputs)
                stamp(quantised, metadata)
                save_onnx(quantised, small_onnx_file)
                files.append(('onnxruntime', small_onnx_file, 'int8'))
            if 'openvino' in runtimes:
                network = quantise.int8_openvino(to_openvino(onnx_file, metadata), inputs)
                stamp_openvino(network, metadata)
                save_openvino(network, small_file)
                files.append(('openvino', small_file, 'int8'))
        for runtime, file, precision in files:
            settings = dict(mask_format=contestant.masks)
            with DefaultScope.overwrite_default_scope('mmdet'):
                detector = ExportedCenterMask(str(file), runtime, torch.get_num_threads(), test_cfg=settings)
            way = runtime if precision == 'float32' else f'{runtime}, {precision}'
            yield Contestant(contestant.config, way, detector, contestant.batches, contestant.masks, precision, runtime)
