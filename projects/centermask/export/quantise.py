"""Smaller numbers in exported models, by the runtimes' own tools: float16 and int8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from centermask.export.runtime import require

# What runs in float16 or int8. The rest is where boxes and scores are made, and costs nothing.
HEAVY = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
FOLLOWING = ('Relu', 'MaxPool')  # in float16 where their input is

# Layers whose outputs are coordinates and scores: they stay in float32.
PREDICTORS = ('conv_cls', 'conv_reg', 'conv_centerness', 'conv_logits', 'fc_mask_iou', 'spatial_attention')

Inputs = Sequence[dict[str, np.ndarray]]
"""What a model takes, image by image."""


def half_onnx(exported: Any) -> Any:
    """An ONNX model whose convs and matrix products run in float16, which GPUs do twice as fast and CPUs don't.

    ONNX Runtime's own converter takes all values between other nodes through float16 too, which moves boxes by a tenth
    of a pixel and makes areas infinite.
    """
    onnx = require('onnx')
    graph = exported.graph
    weights = {weight.name: weight for weight in graph.initializer}
    kept, nodes, halves = set(_predictors(graph)), [], {}  # type: ignore[var-annotated]

    def half_of(name: str) -> str:
        """The name of a tensor's twin in float16, made if there is none yet."""
        if name not in halves:
            halves[name] = f'{name}_half'
            if name in weights:
                limit = np.finfo(np.float16).max
                values = onnx.numpy_helper.to_array(weights[name]).clip(-limit, limit).astype(np.float16)
                graph.initializer.append(onnx.numpy_helper.from_array(values, halves[name]))
            else:
                nodes.append(onnx.helper.make_node('Cast', [name], [halves[name]], to=onnx.TensorProto.FLOAT16))
        return halves[name]

    for node in graph.node:
        follows = node.op_type in FOLLOWING and node.input[0] in halves
        if node.name in kept or not (node.op_type in HEAVY or follows):
            nodes.append(node)
            continue
        node.input[:] = [half_of(name) if name else name for name in node.input]
        (output,) = node.output
        halves[output] = f'{output}_half'
        node.output[:] = [halves[output]]
        nodes += [node, onnx.helper.make_node('Cast', [halves[output]], [output], to=onnx.TensorProto.FLOAT)]
    used = {name for node in nodes if node.op_type != 'Cast' for name in node.input}
    used |= {node.input[0] for node in nodes if node.op_type == 'Cast' and not node.input[0].endswith('_half')}
    used |= {output.name for output in graph.output}
    nodes = [node for node in nodes if node.op_type != 'Cast' or node.output[0] in used]
    left = [weight for weight in graph.initializer if weight.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(left)
    return exported


def _predictors(graph: Any) -> list[str]:
    """Names of the nodes of an ONNX graph that have the weights of ``PREDICTORS``."""
    return [node.name for node in graph.node if any(name in i for i in node.input for name in PREDICTORS)]


def int8_onnx(source: Path, inputs: Inputs) -> Any:
    """An ONNX file's model with its convs quantised, by ONNX Runtime.

    Args:
        source: the file.
        inputs: of calibration.
    """
    onnx, quantization = require('onnx'), require('onnxruntime.quantization')
    base: Any = quantization.CalibrationDataReader

    class Reader(base):
        def __init__(self) -> None:
            self.left: Iterator = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'int8.onnx'
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
        return onnx.load(out)


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
