"""Smaller numbers in exported models, by the runtimes' own tools: float16 and int8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from centermask.deploy.runtime import require

# What runs in float16 or int8. The rest is where boxes and scores are made, and costs nothing.
HEAVY = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')

# Layers whose outputs are coordinates and scores: they stay in float32.
PREDICTORS = ('conv_cls', 'conv_reg', 'conv_centerness', 'conv_logits', 'fc_mask_iou', 'spatial_attention')

Inputs = list[dict[str, np.ndarray]]
"""What a model takes, image by image."""


def half_onnx(exported: Any) -> Any:
    """An ONNX model whose convs and matrix products run in float16, which GPUs do twice as fast and CPUs don't."""
    float16 = require('onnxruntime.transformers.float16')
    others = sorted({node.op_type for node in exported.graph.node} - set(HEAVY))
    return float16.convert_float_to_float16(
        exported,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=others,
        node_block_list=_predictors(exported.graph),
    )


def _predictors(graph: Any) -> list[str]:
    """Names of the nodes of an ONNX graph that have the weights of ``PREDICTORS``."""
    return [node.name for node in graph.node if any(name in i for i in node.input for name in PREDICTORS)]


def int8_onnx(source: Path, out: Path, inputs: Inputs) -> None:
    """Quantise the convs of an ONNX file, by ONNX Runtime.

    Args:
        source, out: files.
        inputs: of calibration.
    """
    onnx, quantization = require('onnx'), require('onnxruntime.quantization')
    base: Any = quantization.CalibrationDataReader

    class Reader(base):
        def __init__(self) -> None:
            self.left: Iterator = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    quantization.quantize_static(
        source,
        out,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=['Conv'],
        nodes_to_exclude=_predictors(onnx.load(source).graph),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )


def int8_openvino(model: Any, inputs: Inputs) -> Any:
    """An OpenVINO model quantised by NNCF; ``inputs`` as :func:`int8_onnx` takes them."""
    nncf, ranges = require('nncf'), require('nncf.quantization.range_estimator')
    weights = {
        op.get_friendly_name() for op in model.get_ops() if any(name in op.get_friendly_name() for name in PREDICTORS)
    }
    kept = [
        op.get_friendly_name()
        for op in model.get_ops()
        if op.get_type_name() in ('Convolution', 'MatMul', 'ConvolutionBackpropData')
        and any(source.get_node().get_friendly_name() in weights for source in op.input_values())
    ]
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
        # The least and greatest value of all pictures, not their mean, which cuts off what stands out.
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX
        ),
    )
