"""A CenterMask as one graph of tensors, from images to detections, that an exporter can trace."""

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
    """MMCV's modulated deformable conv as an operator that can be exported."""

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
    """Pixels (N, H, W, 3) of bytes, blue first → what the network takes: normalised, zero outside the images, padded.

    A graph of its own: in one with the network torch's exporter would take minutes to follow the rounded-up sizes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, divisor: int) -> None:
        super().__init__()
        self.register_buffer('mean', mean)
        self.register_buffer('std', std)
        self.divisor = divisor

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[1], images.shape[2]
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        rows = torch.arange(height)[None] < sizes[:, :1]
        columns = torch.arange(width)[None] < sizes[:, 1:]
        x = x * (rows[:, None, :, None] & columns[:, None, None, :])
        return F.pad(x, (0, -width % self.divisor, 0, -height % self.divisor)), sizes + 0


class ExportGraph(nn.Module):
    """images (N, 3, H, W) and their sizes (N, 2) → detections.

    Args:
        model: the detector; it is copied.
        full_masks: whether masks come in the images' pixels, (D, H, W), instead of in their boxes.
        padded: whether each image gets as many detections as the config allows, the missing ones with a label of −1.
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
        """Return boxes, labels, scores, mask scores and masks of D detections, and each one's image (D,).

        Boxes are in pixels of the images as they come in, clipped to their sizes. Where ``padded`` it is (N, K, …)
        instead of (D, …), without the last.

        Args:
            images: normalised, padded to multiples of 32, (N, 3, H, W).
            sizes: height and width of each image without padding, in pixels, int64.
        """
        features = self.model.extract_feat(images)
        boxes, scores, labels, image = self.detections(features, sizes)
        clipped, valid = self.clipped(boxes, sizes, image)
        if self.padded:
            # Boxes without area would become NaN in OpenVINO's RoIAlign.
            valid = valid & (scores > 0)
            boxes = torch.where(valid[:, None], boxes, boxes.new_tensor([0.0, 0.0, 1.0, 1.0]))
            clipped, scores = clipped * valid[:, None], scores * valid
        else:
            kept = valid.nonzero().squeeze(1)
            boxes, clipped, scores, labels, image = (part[kept] for part in (boxes, clipped, scores, labels, image))
        # OpenVINO can't pool no RoIs, so there is always one more.
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
            return clipped, labels, scores, mask_scores, masks, image
        parts = (clipped, torch.where(valid, labels, -1), scores, mask_scores, masks)
        return tuple(part.reshape(sizes.shape[0], self.limit, *part.shape[1:]) for part in parts)

    def detections(self, features: tuple[Tensor, ...], sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (D, 4), scores (D,), labels (D,) and image (D,) after NMS."""
        head = self.model.bbox_head
        boxes, scores, labels = head.candidates(*head(features), sizes)  # (N, K, 4), (N, K), (N, K)
        config = self.model.test_cfg['nms']
        selected = operators.nms(
            self.apart(boxes, scores, labels, config.get('offset', 0)), scores, config['iou_threshold'], self.limit
        )
        image, place = selected.unbind(1)
        if self.padded:
            place, there, image = self.pad(image, place, sizes.shape[0])
            return boxes[image, place], scores[image, place] * there, labels[image, place], image
        return boxes[image, place], scores[image, place], labels[image, place], image

    def apart(self, boxes: Tensor, scores: Tensor, labels: Tensor, offset: int) -> Tensor:
        """Boxes for one NMS of all classes.

        Args:
            boxes, scores, labels: candidates.
            offset: 1 where a box ends inside its last pixel.
        """
        found = (scores > 0)[..., None]
        boxes = torch.where(found, boxes, boxes.new_zeros(()))
        boxes = offset_by_class(boxes, labels, self.model.bbox_head.num_classes)
        return torch.cat([boxes[..., :2], boxes[..., 2:] + offset], dim=2)

    def pad(self, image: Tensor, place: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Place, whether there is one, and image, each (N · K,), of detections filled up to K an image."""
        counts = (image[:, None] == torch.arange(count)).sum(0)  # (N,)
        first = counts.cumsum(0) - counts
        slots = image * self.limit + torch.arange(image.shape[0]) - first[image]
        places = place.new_zeros(count * self.limit).scatter(0, slots, place)
        images = torch.arange(count)[:, None].expand(-1, self.limit).reshape(-1)
        there = (torch.arange(self.limit)[None] < counts[:, None]).reshape(-1)
        return places, there, images

    def clipped(self, boxes: Tensor, sizes: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes clipped to their images, and which (D,) remain; the paper recipe's are clipped already and all do."""
        if self.model.bbox_head.legacy_boxes:
            return boxes, torch.ones_like(image, dtype=torch.bool)
        limits = sizes[image].flip(1).repeat(1, 2).to(boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        return boxes, (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])

    def masks(
        self, features: tuple[Tensor, ...], boxes: Tensor, labels: Tensor, image: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (D, 28, 28) and, with a mask scoring head, predicted IoU (D,)."""
        head = self.model.roi_head
        extractor = head.mask_roi_extractor
        rois = torch.cat([image[:, None].to(boxes.dtype), boxes], dim=1)
        areas = (sizes[:, 0] * sizes[:, 1]).to(boxes.dtype)
        levels = extractor.map_roi_levels(rois, areas)
        elsewhere = torch.cat([rois[:, :1], rois.new_tensor([[0.0, 0.0, 1.0, 1.0]]).expand(rois.shape[0], -1)], dim=1)
        pooled: Tensor | None = None
        for i, layer in enumerate(extractor.roi_layers):
            here = levels == i
            # A RoI of another level is made tiny, so that it costs next to nothing, and left out.
            of_level = operators.roi_align(
                features[i],
                torch.where(here[:, None], rois, elsewhere),
                layer.output_size[0],
                layer.spatial_scale,
                layer.sampling_ratio,
                layer.aligned,
            )
            pooled = of_level if pooled is None else torch.where(here[:, None, None, None], of_level, pooled)
        return head.heads(pooled, labels)

    def pasted(self, masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
        """Masks (D, H, W) of 0 and 1, uint8, of probabilities (D, 28, 28) in boxes (D, 4).

        Both ways of :mod:`centermask.mask_pasting` are bilinear: a matrix of weights for the rows, one for the columns.
        """
        rounded = self.model.roi_head.pasting == 'resized'
        cells = masks.shape[1]
        if rounded:  # with a margin of one cell
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
            places = pixels * (cells / lengths[:, axis, None]) - 0.5
            if rounded:
                places = places.clamp(0, cells - 1)
            weight = (1 - (places[..., None] - torch.arange(cells)).abs()).clamp(min=0)  # (D, count, cells)
            if rounded:
                weight = weight * ((pixels > 0) & (pixels < lengths[:, axis, None]))[..., None]
            weights.append(weight)
        pasted = weights[0] @ masks @ weights[1].transpose(1, 2)
        return (pasted > self.mask_threshold if rounded else pasted >= self.mask_threshold).to(torch.uint8)
