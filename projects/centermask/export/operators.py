"""The three operators of a CenterMask that torch's exporter doesn't know, each with its ONNX counterpart.

MMCV's own ones are opaque to the exporter, and their ONNX symbols are invalid from opset 16 on. These are traced in
their place and become standard ONNX operators; run by torch they are MMCV's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmcv import ops
from torch import Tensor


@torch.library.custom_op('centermask::roi_align', mutates_args=())
def roi_align(features: Tensor, rois: Tensor, size: int, scale: float, sampling_ratio: int, aligned: bool) -> Tensor:
    """Features (R, C, size, size) of RoIs (R, 5), image index and corners, from a map (N, C, H, W) of 1 / ``scale``."""
    return ops.roi_align(features.contiguous(), rois, (size, size), scale, sampling_ratio, 'avg', aligned)


@roi_align.register_fake
def _(features: Tensor, rois: Tensor, size: int, scale: float, sampling_ratio: int, aligned: bool) -> Tensor:
    return features.new_empty((rois.shape[0], features.shape[1], size, size))


@torch.library.custom_op('centermask::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """The image and the place in it, (S, 2), of the boxes (N, K, 4) kept: image by image by falling score above 0.

    Args:
        boxes, scores: of N images, (N, K, 4) and (N, K).
        iou_threshold: what overlaps a better box by more goes.
        limit: the most that an image keeps.
    """
    found = []
    for image, (of_image, score) in enumerate(zip(boxes, scores, strict=True)):
        places = (score > 0).nonzero().squeeze(1)
        if len(places):
            places = places[ops.nms(of_image[places], score[places], iou_threshold)[1][:limit]]
        found.append(torch.stack([torch.full_like(places, image), places], dim=1))
    return torch.cat(found)


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 2), dtype=torch.long)


@torch.library.custom_op('centermask::deform_conv', mutates_args=())
def deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """Modulated deformable conv (DCNv2) of one group."""
    return ops.modulated_deform_conv2d(
        x.contiguous(), offset.contiguous(), mask.contiguous(), weight, bias, stride, padding, dilation, 1, 1
    )


@deform_conv.register_fake
def _(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], *offset.shape[2:]))


def translations() -> dict[Callable, Callable]:
    """What ``torch.onnx.export`` takes as ``custom_translation_table``."""
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
        # torch's own translation takes a number, not a width that the image decides. Nothing here is negative.
        return op.Mod(x, other)

    return {
        torch.ops.centermask.roi_align.default: roi_align_to_onnx,
        torch.ops.centermask.nms.default: nms_to_onnx,
        torch.ops.centermask.deform_conv.default: deform_conv_to_onnx,
        torch.ops.aten.remainder.Scalar: remainder_to_onnx,
    }
