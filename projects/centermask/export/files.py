"""Write exported models as ONNX or OpenVINO files, in float32 or reduced by the runtimes' own tools."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from centermask.export.metadata import Metadata
from centermask.export.runtime import require
from centermask.utils.errors import RunError

# Operators in reduced precision: nearly all of the time. The others compute boxes and scores and cost next to nothing.
HEAVY = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
FOLLOWING = ('Relu', 'MaxPool')  # in float16 where their input is

# Layers whose outputs are coordinates and scores: they stay in float32.
PREDICTORS = ('conv_cls', 'conv_reg', 'conv_centerness', 'conv_logits', 'fc_mask_iou', 'spatial_attention')

Inputs = Sequence[dict[str, np.ndarray]]
"""Inputs of a model, one dict per image."""


def set_metadata(exported: Any, metadata: Metadata) -> None:
    """Replace the metadata of an ONNX model."""
    del exported.metadata_props[:]
    require('onnx').helper.set_model_props(exported, metadata.strings())


def save_onnx(exported: Any, out: Path) -> None:
    """Write an ONNX model.

    Raises:
        RunError: it can't be written.
    """
    try:
        require('onnx').save(exported, out)
    except OSError as error:
        raise _not_written(out) from error


def _not_written(out: Path) -> RunError:
    return RunError(f"{out.name} can't be written: make room in the folder of --out or name another.")


def convert(source: Path, out: Path, metadata: Metadata, inputs: Inputs = ()) -> None:
    """Write a float32 ONNX file in another format or precision.

    Args:
        source: the ONNX file.
        out: ``.onnx``, or ``.xml`` for OpenVINO, which also writes a ``.bin`` with the weights beside it.
        metadata: of ``out``; its precision is the precision to write.
        inputs: calibration inputs for int8.

    Raises:
        InputError: a package isn't installed that this needs.
        RunError: the files can't be written.
    """
    (_write_openvino if out.suffix == '.xml' else _write_onnx)(source, out, metadata, inputs)


def _write_onnx(source: Path, out: Path, metadata: Metadata, inputs: Inputs) -> None:
    onnx = require('onnx')
    if metadata.precision == 'int8':
        exported = int8_onnx(source, inputs)
    else:
        exported = onnx.load(source)
        if metadata.precision == 'half':
            exported = half_onnx(exported)
    set_metadata(exported, metadata)
    save_onnx(exported, out)


def _write_openvino(source: Path, out: Path, metadata: Metadata, inputs: Inputs) -> None:
    openvino = require('openvino')
    model = openvino.convert_model(source)
    if metadata.precision == 'int8':
        model = int8_openvino(model, inputs)
    for key, value in metadata.strings().items():
        model.set_rt_info(value, ['centermask', key])
    try:
        openvino.save_model(model, out, compress_to_fp16=metadata.precision == 'half')
    except RuntimeError as error:  # which doesn't say why
        raise _not_written(out) from error


def _is_predictor(names: Sequence[str]) -> bool:
    """Return whether one of an operator's inputs is a weight of ``PREDICTORS``."""
    return any(predictor in name for name in names for predictor in PREDICTORS)


def half_onnx(exported: Any) -> Any:
    """Return an ONNX model whose convs and matrix products run in float16, which is for GPUs.

    ONNX Runtime's converter rounds every float32 tensor that the model describes (``value_info``) to float16, also
    between operators that stay in float32; that moves boxes by a tenth of a pixel and makes areas infinite. Here the
    model describes only what the operators in float16 read and write.
    """
    onnx, transformers = require('onnx'), 'onnxruntime.transformers'
    exported = onnx.shape_inference.infer_shapes(exported)
    graph = exported.graph
    nodes, read, written = set(), set(), set()  # type: tuple[set[str], set[str], set[str]]
    for node in graph.node:  # in the order in which they run
        follows = node.op_type in FOLLOWING and node.input[0] in written
        if follows or (node.op_type in HEAVY and not _is_predictor(node.input)):
            nodes.add(node.name)
            read.update(node.input)
            written.update(node.output)
    described = [value for value in graph.value_info if value.name in read | written]
    outputs = list(graph.output)
    del graph.value_info[:], graph.output[:]
    graph.value_info.extend(described)
    exported = require(f'{transformers}.float16').convert_float_to_float16(
        exported,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[],
        node_block_list=[node.name for node in graph.node if node.name not in nodes],
    )
    exported.graph.output.extend(outputs)
    require(f'{transformers}.onnx_model').OnnxModel(exported).topological_sort()
    return exported


class _CalibrationReader:
    """ONNX Runtime's interface to calibration inputs (``CalibrationDataReader``)."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)


def int8_onnx(source: Path, inputs: Inputs) -> Any:
    """Return an ONNX file's model with its convs quantised by ONNX Runtime, calibrated on ``inputs``."""
    onnx, quantization = require('onnx'), require('onnxruntime.quantization')
    nodes = onnx.load(source).graph.node
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'int8.onnx'
        quantization.quantize_static(
            source,
            out,
            _CalibrationReader(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=['Conv'],
            nodes_to_exclude=[node.name for node in nodes if _is_predictor(node.input)],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(out)


def int8_openvino(model: Any, inputs: Inputs) -> Any:
    """Return an OpenVINO model quantised by NNCF, calibrated on ``inputs``."""
    nncf, ranges = require('nncf'), require('nncf.quantization.range_estimator')
    kept = [
        op.get_friendly_name()
        for op in model.get_ops()
        if op.get_type_name() in ('Convolution', 'MatMul', 'ConvolutionBackpropData')
        and _is_predictor([source.get_node().get_friendly_name() for source in op.input_values()])
    ]
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
        # The least and greatest value over all images. Their means would cut off outliers.
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX
        ),
    )
