"""What TensorRT's ONNX parser takes, of the operators that exported files have.

The facts are those of docs/operators.md in github.com/onnx/onnx-tensorrt, its table of TensorRT 10.15.
"""

from typing import Any

import onnx

OPSETS = range(9, 25)
FLOAT, NUMBERS, ANY, BOOL = {'FLOAT'}, {'FLOAT', 'INT64'}, {'FLOAT', 'INT64', 'BOOL'}, {'BOOL'}
TYPES = {
    **dict.fromkeys(['Add', 'Div', 'Mod', 'Mul', 'Sub', 'Max', 'Min', 'Neg', 'Pow', 'Range'], NUMBERS),
    **dict.fromkeys(['ReduceMax', 'ReduceMean', 'ReduceMin', 'ReduceSum', 'Relu', 'ScatterElements', 'TopK'], NUMBERS),
    **dict.fromkeys(['Equal', 'Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual'], NUMBERS),
    **dict.fromkeys(['Abs', 'Ceil', 'Clip', 'CumSum', 'Exp', 'Floor', 'HardSigmoid', 'Log', 'Reciprocal'], FLOAT),
    **dict.fromkeys(['Round', 'Sigmoid', 'Sqrt'], FLOAT),
    **dict.fromkeys(['Conv', 'ConvTranspose', 'Gemm', 'GlobalAveragePool', 'MatMul', 'MaxPool', 'Resize'], FLOAT),
    **dict.fromkeys(['GroupNormalization', 'InstanceNormalization', 'NonMaxSuppression', 'NonZero', 'RoiAlign'], FLOAT),
    **dict.fromkeys(['Cast', 'Concat', 'ConstantOfShape', 'Expand', 'Gather', 'GatherElements', 'GatherND'], ANY),
    **dict.fromkeys(['Identity', 'Reshape', 'Shape', 'Slice', 'Split', 'Squeeze', 'Tile', 'Transpose'], ANY),
    **dict.fromkeys(['Unsqueeze', 'Where'], ANY),
    **dict.fromkeys(['And', 'Not', 'Or'], BOOL),
}
"""Types of the data, the first input; of ``Where`` the second one, of ``ConstantOfShape`` the output."""

CONSTANT_AXES = ('ReduceMax', 'ReduceMean', 'ReduceMin', 'ReduceSum', 'Squeeze', 'Unsqueeze')
RESIZING = {
    'coordinate_transformation_mode': {b'half_pixel', b'pytorch_half_pixel', b'asymmetric', b'align_corners'},
    'mode': {b'nearest', b'linear'},
    'nearest_mode': {b'floor', b'ceil', b'round_prefer_floor', b'round_prefer_ceil'},
    'keep_aspect_ratio_policy': {b'stretch'},
    'antialias': {0},
}


def unlisted(model: Any) -> set[str]:
    """Return a phrase for every operator of an ONNX model that the table leaves out, or has not with its types."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    constants = {tensor.name for tensor in graph.initializer}
    wrong = {f'opset {entry.version}' for entry in model.opset_import if entry.version not in OPSETS}
    for node in graph.node:
        kind, inputs = node.op_type, list(node.input)
        data = {'Where': inputs[1:2], 'ConstantOfShape': list(node.output)}.get(kind, inputs[:1])
        found = {onnx.TensorProto.DataType.Name(types[name]) for name in data}
        if node.domain or not found <= TYPES.get(kind, set()):
            wrong.add(f'{kind} of {", ".join(found)}')
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        if kind in CONSTANT_AXES and not set(inputs[1:]) <= constants:
            wrong.add(f'{kind} with axes that are computed')
        if kind == 'TopK' and not attributes.get('sorted', 1):
            wrong.add('TopK that is not sorted')
        if kind == 'MaxPool' and (len(node.output) > 1 or {*attributes.get('dilations', ())} - {1}):
            wrong.add('MaxPool with indices or dilation')
        if kind == 'Resize':
            wrong |= {
                f'Resize with {key}' for key, known in RESIZING.items() if attributes.get(key, 0) not in known | {0}
            }
    return wrong
