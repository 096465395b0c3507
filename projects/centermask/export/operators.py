"""Three operators that torch's exporter doesn't know, each with its translation to ONNX.

The exporter can't trace MMCV's operators, and MMCV's own ONNX symbols are invalid from opset 16 on. The operators here
call MMCV's in torch, and are exported as standard ONNX operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmcv import ops
from torch import Tensor


@torch.library.custom_op('centermask::roi_align', mutates_args=())
def roi_align(features: Tensor, rois: Tensor, size: int, scale: float, sampling_ratio: int, aligned: bool) -> Tensor:
    """Return features (R, C, size, size) of RoIs (R, 5) from a map (N, C, H, W).

    Args:
        rois: image index and x1, y1, x2, y2 in pixels of the images.
        scale: 1 / stride of the map.
    """
    return ops.roi_align(features.contiguous(), rois, (size, size), scale, sampling_ratio, 'avg', aligned)


@roi_align.register_fake
def _(features: Tensor, rois: Tensor, size: int, scale: float, sampling_ratio: int, aligned: bool) -> Tensor:
    return features.new_empty((rois.shape[0], features.shape[1], size, size))


@torch.library.custom_op('centermask::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Return the image and the index in it, (S, 2), of the boxes that NMS keeps, in each image by falling score.

    Args:
        boxes, scores: candidates of N images, (N, K, 4) and (N, K); those with a score of 0 are left out.
        iou_threshold: a box that overlaps a better one by more is dropped.
        limit: largest number of boxes kept in an image.
    """
    kept = []
    for image, (image_boxes, image_scores) in enumerate(zip(boxes, scores, strict=True)):
        indices = (image_scores > 0).nonzero().squeeze(1)
        if len(indices):
            indices = indices[ops.nms(image_boxes[indices], image_scores[indices], iou_threshold)[1][:limit]]
        kept.append(torch.stack([torch.full_like(indices, image), indices], dim=1))
    return torch.cat(kept)


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 2), dtype=torch.long)


@torch.library.custom_op('centermask::deform_conv', mutates_args=())
def deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """Return the output of a modulated deformable conv (DCNv2) of one group."""
    return ops.modulated_deform_conv2d(
        x.contiguous(), offset.contiguous(), mask.contiguous(), weight, bias, stride, padding, dilation, 1, 1
    )


@deform_conv.register_fake
def _(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], *offset.shape[2:]))


def translations() -> dict[Callable, Callable]:
    """Return the ``custom_translation_table`` for ``torch.onnx.export``."""
    import onnxscript

    op: Any = onnxscript.opset18

    def roi_align_to_onnx(features, rois, size: int, scale: float, sampling_ratio: int, aligned: bool):  # type: ignore[no-untyped-def]
        return op.RoiAlign(
            features,
            op.Slice(rois, [1], [5], [1]),
            op.Cast(op.Squeeze(op.Slice(rois, [0], [1], [1]), [1]), to=7),
            coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel',
            mode='avg',
            output_height=size,
            output_width=size,
            sampling_ratio=sampling_ratio,
            spatial_scale=scale,
        )

    def nms_to_onnx(boxes, scores, iou_threshold: float, limit: int):  # type: ignore[no-untyped-def]
        kept = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, [1]),
            op.Constant(value_ints=[limit]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[0.0]),
        )
        return op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)

    def deform_conv_to_onnx(x, offset, mask, weight, bias, stride: int, padding: int, dilation: int):  # type: ignore[no-untyped-def]
        return onnxscript.opset19.DeformConv(
            x,
            weight,
            offset,
            bias,
            mask,
            strides=[stride] * 2,
            pads=[padding] * 4,
            dilations=[dilation] * 2,
        )

    def remainder_to_onnx(x, other):  # type: ignore[no-untyped-def]
        # torch's own translation takes a constant, but here it is a width. Nothing is negative here.
        return op.Mod(x, other)

    def floor_divide_to_onnx(x, other):  # type: ignore[no-untyped-def]
        # torch's own translation compares signs as bools, which TensorRT doesn't. Nothing is negative here.
        return op.Div(x, other)

    ours: Any = torch.ops.centermask
    return {
        ours.roi_align.default: roi_align_to_onnx,
        ours.nms.default: nms_to_onnx,
        ours.deform_conv.default: deform_conv_to_onnx,
        torch.ops.aten.remainder.Scalar: remainder_to_onnx,
        torch.ops.aten.floor_divide.default: floor_divide_to_onnx,
    }
