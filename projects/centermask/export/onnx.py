"""Trace a detector and write it as an ONNX model."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import torch
from mmcv.ops import ModulatedDeformConv2d
from mmengine.config import Config

from centermask.detector import CenterMask
from centermask.export import operators
from centermask.export.files import set_metadata
from centermask.export.graph import OUTPUTS, ExportGraph, Preprocessing
from centermask.export.metadata import Metadata, describe_resizing
from centermask.export.runtime import require
from centermask.fcos_head import CenterMaskFCOSHead
from centermask.panoptic_centermask import PanopticCenterMask
from centermask.utils.errors import InputError

OPSET = 18
OPSET_WITH_DEFORM_CONV = 19

# Height and width of the traced images. No two sides of a level of the pyramid are equal, and none is 1: torch would
# take those for equal or constant in every image.
HEIGHT, WIDTH = 320, 448


def has_deform_conv(model: torch.nn.Module) -> bool:
    """Return whether a model has deformable convs, which OpenVINO doesn't run."""
    return any(isinstance(module, ModulatedDeformConv2d) for module in model.modules())


def describe(
    model: Any, cfg: Config, preprocess: bool = False, full_masks: bool = False, padded: bool = False
) -> Metadata:
    """Return the metadata of an export.

    Args:
        model: the detector.
        cfg: its config, whose test pipeline says how images are resized.
        preprocess, full_masks: as in :class:`Metadata`.
        padded: whether each image gets a fixed number of detections, ``max_per_img`` of the config.

    Raises:
        InputError: the model is no CenterMask, has no mask branch or another box head, or ONNX has no operator for its
            NMS.
    """
    if isinstance(model, PanopticCenterMask):
        raise InputError(
            f'The config {cfg.filename} builds a PanopticCenterMask, and an exported file has no place for a panoptic '
            'map: predict with the checkpoint itself, or export a CenterMask, such as that of '
            "configs/centermask-star_v2-39_fpn_3x_coco.py, which takes CenterMask2's panoptic checkpoints too."
        )
    if not (isinstance(model, CenterMask) and isinstance(model.bbox_head, CenterMaskFCOSHead) and model.roi_head):
        raise InputError(
            f'The config {cfg.filename} builds no CenterMask with a mask branch: only such a model can be exported.'
        )
    if (model.test_cfg['nms'] or {}).get('type') == 'soft_nms':
        raise InputError(
            f'model.test_cfg.nms.type of {cfg.filename} is soft_nms, which ONNX lacks: export with '
            '--cfg-options model.test_cfg.nms.type=nms, which gives other scores, or test the checkpoint itself.'
        )
    pipeline = cfg.test_dataloader.dataset.pipeline
    if any('scale_factor' in step for step in pipeline):
        raise InputError(
            f'The test pipeline of {cfg.filename} resizes images by a scale_factor, which the metadata of an exported '
            'file have no place for: give the step a scale.'
        )
    scale, resize = describe_resizing(pipeline)
    preprocessor = model.data_preprocessor
    return Metadata(
        recipe='paper' if model.bbox_head.legacy_boxes else 'star',
        version=version('centermask'),
        classes=list(model.dataset_meta['classes']),
        mean=[round(value, 4) for value in preprocessor.mean.flatten().tolist()],
        std=[round(value, 4) for value in preprocessor.std.flatten().tolist()],
        divisor=preprocessor.pad_size_divisor,
        scale=scale,
        resize=resize,
        preprocess=preprocess,
        full_masks=full_masks,
        detections=int(model.test_cfg['max_per_img']) if padded else 0,
        pasting=model.roi_head.pasting,
        mask_threshold=float(model.test_cfg['mask_thr_binary']),
    )


def to_onnx(model: CenterMask, metadata: Metadata) -> Any:
    """Return a detector as an ONNX model (``onnx.ModelProto``) of standard operators, with its metadata.

    Args:
        model: the detector, on the CPU.
        metadata: result of :func:`describe`, which determines the graph's inputs and outputs.

    Raises:
        InputError: a package isn't installed that exporting needs.
    """
    onnx = require('onnx')
    require('onnxscript')
    padded = metadata.detections > 0
    opset = OPSET_WITH_DEFORM_CONV if has_deform_conv(model) else OPSET
    batch, rows, columns = (torch.export.Dim(name, min=1) for name in ('batch', 'rows', 'columns'))
    images = torch.zeros(2, 3, HEIGHT, WIDTH)
    sizes = torch.tensor([[HEIGHT, WIDTH - 1], [HEIGHT - 1, WIDTH]])
    divisor = metadata.divisor
    exported = _trace(
        ExportGraph(model, metadata.full_masks, padded),
        (images, sizes),
        ({0: batch, 2: divisor * rows, 3: divisor * columns}, {0: batch}),
        [*OUTPUTS] if padded else [*OUTPUTS, 'image_index'],
        opset,
    )
    if metadata.preprocess:
        preprocessor = model.data_preprocessor
        pixels = torch.zeros(2, HEIGHT - 3, WIDTH - 5, 3, dtype=torch.uint8)
        before = _trace(
            Preprocessing(preprocessor.mean, preprocessor.std, divisor),
            (pixels, sizes),
            ({0: batch, 1: rows, 2: columns}, {0: batch}),
            ['network_images', 'network_sizes'],
            opset,
        )
        exported = _join(onnx, before, exported)
    set_metadata(exported, metadata)
    onnx.checker.check_model(exported, full_check=True)
    return exported


def _trace(graph: torch.nn.Module, inputs: tuple, dims: tuple | None, outputs: list[str], opset: int) -> Any:
    with _silenced():
        program = torch.onnx.export(
            graph.eval(),
            inputs,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=dims,
            custom_translation_table=operators.translations(),
            input_names=['images', 'sizes'],
            output_names=outputs,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _join(onnx: Any, before: Any, after: Any) -> Any:
    """Return one model of two, the second of which takes the outputs of the first."""
    before = onnx.compose.add_prefix(before, 'pre_', rename_inputs=False, rename_outputs=False)
    after = onnx.compose.add_prefix(after, 'net_', rename_outputs=False, rename_edges=False, rename_nodes=False)
    wires = [('network_images', 'net_images'), ('network_sizes', 'net_sizes')]
    before.ir_version = after.ir_version
    joined = onnx.compose.merge_models(before, after, io_map=wires)
    del joined.opset_import[1:]  # the same operator set is listed twice
    return joined


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Silence the exporter's warnings about optional packages and its own deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
