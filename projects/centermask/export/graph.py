"""A CenterMask as one graph of tensors, from images to detections, that torch's exporter can trace."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from mmcv.cnn.utils import fuse_conv_bn
from mmcv.ops import ModulatedDeformConv2dPack
from torch import Tensor, nn

from centermask.boxes import offset_by_class
from centermask.detector import CenterMask
from centermask.export import operators

OUTPUTS = ('boxes', 'labels', 'scores', 'mask_scores', 'masks')


class DeformConv(nn.Module):
    """MMCV's modulated deformable conv as an operator that can be exported.

    Args:
        module: the conv whose weights it takes.
    """

    def __init__(self, module: ModulatedDeformConv2dPack) -> None:
        super().__init__()
        self.offsets = module.conv_offset
        self.weight = module.weight
        self.bias = nn.Parameter(module.weight.new_zeros(len(module.weight)) if module.bias is None else module.bias)
        self.geometry = (module.stride[0], module.padding[0], module.dilation[0])

    def forward(self, x: Tensor) -> Tensor:
        first, second, mask = self.offsets(x).chunk(3, dim=1)
        return operators.deform_conv(
            x, torch.cat([first, second], dim=1), mask.sigmoid(), self.weight, self.bias, *self.geometry
        )


class Preprocessing(nn.Module):
    """Normalisation and padding of images, bytes (N, H, W, 3) in BGR.

    It is traced apart from the network, since torch's exporter would need minutes to follow the rounded-up sizes
    through the network.

    Args:
        mean, std: of the pixels, (3, 1, 1).
        divisor: height and width are padded to multiples of it, in pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, divisor: int) -> None:
        super().__init__()
        self.register_buffer('mean', mean)
        self.register_buffer('std', std)
        self.divisor = divisor

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's images (N, 3, H, W), 0 outside each image's size, and the sizes (N, 2)."""
        height, width = images.shape[1], images.shape[2]
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        rows = torch.arange(height)[None] < sizes[:, :1]
        columns = torch.arange(width)[None] < sizes[:, 1:]
        x = x * (rows[:, None, :, None] & columns[:, None, None, :])
        return F.pad(x, (0, -width % self.divisor, 0, -height % self.divisor)), sizes + 0


class ExportGraph(nn.Module):
    """Detection as one graph of tensors.

    Args:
        model: the detector, which is copied.
        full_masks: whether masks have the size of the images, (D, H, W), else 28×28 cells in their boxes.
        padded: whether each image gets K detections, ``max_per_img`` of the config, the missing ones with label −1.
    """

    def __init__(self, model: CenterMask, full_masks: bool = False, padded: bool = False) -> None:
        super().__init__()
        self.model = fuse_conv_bn(copy.deepcopy(model).eval())
        for parent in list(self.model.modules()):
            for name, child in parent.named_children():
                if isinstance(child, ModulatedDeformConv2dPack):
                    setattr(parent, name, DeformConv(child))
        self.full_masks = full_masks
        self.padded = padded
        self.limit = int(model.test_cfg['max_per_img'])
        self.mask_threshold = float(model.test_cfg['mask_thr_binary'])

    @torch.no_grad()
    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Return boxes, labels, scores, mask scores and masks of D detections, and the image index of each (D,).

        Boxes are in pixels of the input images and clipped to their sizes. If ``padded``, shapes are (N, K, …) instead
        of (D, …) and there is no image index.

        Args:
            images: normalised, padded to multiples of 32, (N, 3, H, W).
            sizes: height and width of each image without padding, in pixels, int64, (N, 2).
        """
        features = self.model.extract_feat(images)
        boxes, scores, labels, image = self.detections(features, sizes)
        clipped, valid = self.clipped(boxes, sizes, image)
        if self.padded:
            # OpenVINO's RoIAlign returns NaN for boxes without area.
            valid = valid & (scores > 0)
            boxes = torch.where(valid[:, None], boxes, boxes.new_tensor([0.0, 0.0, 1.0, 1.0]))
            clipped, scores = clipped * valid[:, None], scores * valid
        else:
            kept = valid.nonzero().squeeze(1)
            boxes, clipped, scores, labels, image = (part[kept] for part in (boxes, clipped, scores, labels, image))
        # OpenVINO's RoIAlign fails without RoIs, so there is always one more.
        logits, ious = self.masks(
            features,
            torch.cat([boxes, boxes.new_tensor([[0.0, 0.0, 1.0, 1.0]])]),
            torch.cat([labels, labels.new_zeros(1)]),
            torch.cat([image, image.new_zeros(1)]),
            sizes,
        )
        masks = logits[:-1].sigmoid()
        mask_scores = scores * (1.0 if ious is None else ious[:-1])
        if self.full_masks:
            masks = self.pasted(masks, clipped, images.shape[2], images.shape[3])
        if not self.padded:
            return clipped, labels, scores, mask_scores, self.output(masks), image
        parts = (clipped, torch.where(valid, labels, -1), scores, mask_scores, masks)
        *others, masks = (part.reshape(sizes.shape[0], self.limit, *part.shape[1:]) for part in parts)
        return *others, self.output(masks)

    def output(self, masks: Tensor) -> Tensor:
        """Return masks as they are given out: of the images' size as bytes, which TensorRT has nowhere else."""
        return masks.to(torch.uint8) if self.full_masks else masks

    def detections(self, features: tuple[Tensor, ...], sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return boxes (D, 4), scores (D,), labels (D,) and image index (D,) after NMS."""
        head = self.model.bbox_head
        boxes, scores, labels = head.candidates(*head(features), sizes)  # (N, K, 4), (N, K), (N, K)
        config = self.model.test_cfg['nms'] or dict(iou_threshold=1.0)  # which no overlap exceeds
        limit = min(self.limit, limit) if (limit := config.get('max_num', -1)) > 0 else self.limit
        if threshold := config.get('score_threshold'):
            scores = F.threshold(scores, threshold, 0)
        separated = boxes
        if not config.get('class_agnostic'):
            # Moved apart by class, so that one NMS serves all classes. Those of score 0 must not widen the distance.
            separated = torch.where((scores > 0)[..., None], boxes, boxes.new_zeros(()))
            separated = offset_by_class(separated, labels, head.num_classes)
        # The offset is 1 if boxes end inside their last pixel.
        separated = torch.cat([separated[..., :2], separated[..., 2:] + config.get('offset', 0)], dim=2)
        image, index = operators.nms(separated, scores, config['iou_threshold'], limit).unbind(1)
        if not self.padded:
            return boxes[image, index], scores[image, index], labels[image, index], image
        index, present, image = self.pad(image, index, sizes.shape[0])
        return boxes[image, index], scores[image, index] * present, labels[image, index], image

    def pad(self, image: Tensor, index: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Fill up the detections of ``count`` images to K each.

        Args:
            image: image index of each detection, (D,), ascending.
            index: index of each detection among the candidates of its image, (D,).

        Returns:
            Index, whether it is a detection, and image index, each (N · K,).
        """
        counts = (image[:, None] == torch.arange(count)).sum(0)  # (N,)
        first = (image[:, None] < torch.arange(count)).sum(0)  # TensorRT has no cumulative sum of integers
        slots = image * self.limit + torch.arange(image.shape[0]) - first[image]
        indices = index.new_zeros(count * self.limit).scatter(0, slots, index)
        present = (torch.arange(self.limit)[None] < counts[:, None]).reshape(-1)
        images = torch.arange(count)[:, None].expand(-1, self.limit).reshape(-1)
        return indices, present, images

    def clipped(self, boxes: Tensor, sizes: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (D, 4) clipped to their images, and whether (D,) they have an area.

        The paper recipe clips boxes before NMS and keeps all.
        """
        if self.model.bbox_head.legacy_boxes:
            return boxes, torch.ones_like(image, dtype=torch.bool)
        limits = sizes[image].flip(1).repeat(1, 2).to(boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        return boxes, (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])

    def masks(
        self, features: tuple[Tensor, ...], boxes: Tensor, labels: Tensor, image: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return mask logits (D, 28, 28) and, with a mask scoring head, predicted IoU (D,)."""
        head = self.model.roi_head
        extractor = head.mask_roi_extractor
        rois = torch.cat([image[:, None].to(boxes.dtype), boxes], dim=1)
        areas = (sizes[:, 0] * sizes[:, 1]).to(boxes.dtype)
        levels = extractor.map_roi_levels(rois, areas)
        tiny = torch.cat([rois[:, :1], rois.new_tensor([[0.0, 0.0, 1.0, 1.0]]).expand(rois.shape[0], -1)], dim=1)
        pooled: Tensor | None = None
        for i, layer in enumerate(extractor.roi_layers):
            on_level = levels == i
            # All RoIs are pooled from each level. Those of other levels are replaced by tiny ones, which cost next to
            # nothing, and their features aren't used.
            level_features = operators.roi_align(
                features[i],
                torch.where(on_level[:, None], rois, tiny),
                layer.output_size[0],
                layer.spatial_scale,
                layer.sampling_ratio,
                layer.aligned,
            )
            if pooled is not None:
                level_features = torch.where(on_level[:, None, None, None], level_features, pooled)
            pooled = level_features
        return head.heads(pooled, labels)

    def pasted(self, masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
        """Return masks (D, H, W), bool, from probabilities (D, 28, 28) in boxes (D, 4).

        As in :mod:`centermask.mask_pasting`, a mask is the product of the weights of its rows, its probabilities and
        the weights of its columns.
        """
        resized = self.model.roi_head.pasting == 'resized'
        cells = masks.shape[1]
        if resized:  # with a margin of one cell
            margin = (cells + 2) / cells
            masks, cells = F.pad(masks, (1, 1, 1, 1)), cells + 2
            centers, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * margin
            starts = (centers - halves).trunc()
            lengths = ((centers + halves).trunc() - starts + 1).clamp(min=1)
        else:
            starts, lengths = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        weights = []
        for axis, count in ((1, height), (0, width)):
            pixels = torch.arange(count) - starts[:, axis, None] + 0.5  # (D, count)
            positions = pixels * (cells / lengths[:, axis, None]) - 0.5
            if resized:
                positions = positions.clamp(0, cells - 1)
            weight = (1 - (positions[..., None] - torch.arange(cells)).abs()).clamp(min=0)  # (D, count, cells)
            if resized:
                weight = weight * ((pixels > 0) & (pixels < lengths[:, axis, None]))[..., None]
            weights.append(weight)
        pasted = weights[0] @ masks @ weights[1].transpose(1, 2)
        return pasted > self.mask_threshold if resized else pasted >= self.mask_threshold
