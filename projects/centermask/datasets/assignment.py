"""The objects that a config's FCOS head learns, and the levels that their masks are pooled from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import mmcv
import numpy as np
import torch
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.datasets.coco import innermost
from centermask.datasets.images import MAX_PIXELS
from centermask.datasets.transforms import Resize
from centermask.utils.errors import InputError, config_errors

Size = tuple[int, int]
# How many times larger than a config's training images those may be that :func:`scale_for` proposes.
FACTORS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


def has_fcos_head(cfg: Config) -> bool:
    """Return whether a config's box head computes FCOS targets."""
    model = cfg.get('model')
    head = model.get('bbox_head') if isinstance(model, dict) else None
    return isinstance(head, dict) and 'FCOS' in str(head.get('type'))


class Assignment:
    """FCOS targets and the level of Eq. 2 at the sizes that a config's training resizes images to.

    Args:
        cfg: A config with an FCOS box head.

    Attributes:
        max_pixels: The most pixels of an image that training decodes.
        strides: Strides of the levels that masks are pooled from; empty for a config without a mask branch.
        scale: The greatest ``scale`` that the pipeline resizes to, None if it doesn't resize.
        detections: The most objects of an image that are detected, None without a limit.
        rois: The most objects of an image whose masks are learned at a time, None without a mask branch.

    Raises:
        InputError: The config has no such head or no training data.
    """

    def __init__(self, cfg: Config) -> None:
        if not has_fcos_head(cfg) or not isinstance(cfg.get('train_dataloader'), dict):
            raise InputError(
                f'The config {cfg.filename} has no FCOS box head or no train_dataloader: give one of CenterMask.'
            )
        init_default_scope('mmdet')
        extractor = (cfg.model.get('roi_head') or {}).get('mask_roi_extractor')
        with config_errors(cfg.filename):
            self._head = MODELS.build(dict(cfg.model.bbox_head, num_classes=1, train_cfg=None, test_cfg=None))
            self._extractor = MODELS.build(extractor) if extractor else None
        self._divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
        self.strides: Sequence[int] = extractor.featmap_strides if extractor else ()
        sampler = (cfg.model.get('train_cfg') or {}).get('sampler', {})
        self.detections: int | None = (cfg.model.get('test_cfg') or {}).get('max_per_img')
        self.rois = int(sampler['num'] * sampler.get('pos_fraction', 1)) if 'num' in sampler else None
        dataset = innermost(cfg.train_dataloader)
        self.max_pixels = dataset.get('max_pixels', MAX_PIXELS)
        self._pipeline = dataset['pipeline']
        with config_errors(cfg.filename):
            self._resizes = [(_resize_of(step), scale) for step in self._pipeline for scale in _scales(step)]
        scales = (scale for _, scale in self._resizes)
        self.scale: Size | None = max(scales, key=lambda scale: scale[0] * scale[1], default=None)

    def sizes(self, width: int, height: int) -> list[Size]:
        """Return the sizes (W, H) that training may resize an image to, the greatest first."""
        sizes = {_resized(resize, width, height, scale) for resize, scale in self._resizes}
        return sorted(sizes or {(width, height)}, key=lambda size: -size[0] * size[1])

    def learned(self, boxes: np.ndarray, width: int, height: int, factor: float = 1.0) -> np.ndarray:
        """Return for each object of an image whether a location learns it, at one of the sizes at least.

        Args:
            boxes: x1, y1, x2, y2 in pixels of the image, shape (G, 4).
            width, height: Size of the image.
            factor: Factor on the sizes that training resizes it to.

        Returns:
            Booleans, shape (G,).
        """
        learned = np.zeros(len(boxes), bool)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # on arrays this small several threads mostly wait for each other
        try:
            for size in self.sizes(width, height):
                if learned.all():
                    break
                size = round(factor * size[0]), round(factor * size[1])
                learned |= self._learned_at(self._resize(boxes, (width, height), size), size)
        finally:
            torch.set_num_threads(threads)
        return learned

    def levels(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Return the index into ``strides`` of each object's level at the greatest size (Eq. 2), shape (G,)."""
        if not self._extractor or not len(boxes):
            return np.zeros(0, int)
        size = self.sizes(width, height)[0]
        resized = self._resize(boxes, (width, height), size)
        rois = torch.cat([resized.new_zeros(len(boxes), 1), resized], dim=1)
        return self._extractor.map_roi_levels(rois, resized.new_tensor([size[0] * size[1]])).numpy()

    def _resize(self, boxes: np.ndarray, original: Size, size: Size) -> Tensor:
        scaled = torch.from_numpy(boxes).float() * torch.tensor([size[0] / original[0], size[1] / original[1]] * 2)
        scaled[:, 0::2] = scaled[:, 0::2].clamp(0, size[0])
        scaled[:, 1::2] = scaled[:, 1::2].clamp(0, size[1])
        if any(transform['type'] == 'LegacyBoxes' for transform in self._pipeline):
            scaled[:, 2:] = torch.maximum(scaled[:, 2:] - 1, scaled[:, :2])
        return scaled

    def _learned_at(self, boxes: Tensor, size: Size) -> np.ndarray:
        """Return whether a location of the padded image learns each box, shape (G,)."""
        width, height = (math.ceil(side / self._divisor) * self._divisor for side in size)
        points = [
            self._near_centers(boxes, level, (math.ceil(height / stride), math.ceil(width / stride)))
            for level, stride in enumerate(self._head.strides)
        ]
        # Each object gets a class of its own, from 2: num_classes (1) stands for the background.
        labels, _ = self._head.get_targets(points, [InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)) + 2)])
        found = torch.cat(labels).unique() - 2
        learned = np.zeros(len(boxes), bool)
        learned[found[found >= 0].numpy()] = True
        return learned

    def _near_centers(self, boxes: Tensor, level: int, map_size: tuple[int, int]) -> Tensor:
        """Return the locations of a level that center sampling may choose for a box, all without it, shape (P, 2).

        They are a small part of a large map, on which the targets would take seconds an image.
        """
        least, greatest = self._head.regress_ranges[level]
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
        boxes = boxes[(sides >= least) & (sides <= 2 * greatest)]
        if not len(boxes):
            return boxes[:, :2]
        height, width = map_size
        indices = torch.arange(height * width)
        if self._head.center_sampling:
            radius = self._head.center_sample_radius
            in_cells = boxes / self._head.strides[level]
            start = torch.maximum(in_cells[:, :2], (in_cells[:, :2] + in_cells[:, 2:]) / 2 - radius).clamp(min=0).long()
            end = torch.minimum(in_cells[:, 2:].ceil(), in_cells.new_tensor([width, height]))
            window = torch.arange(math.ceil(2 * radius) + 1)
            columns = start[:, 0, None, None] + window
            rows = start[:, 1, None, None] + window[:, None]
            inside = (columns < end[:, 0, None, None]) & (rows < end[:, 1, None, None])
            indices = (rows * width + columns)[inside].unique()
        return self._head.prior_generator.sparse_priors(indices, map_size, level, torch.float32, 'cpu')


class Proposal(NamedTuple):
    """A size of training images.

    Attributes:
        factor: Factor on each ``scale`` of the config's pipelines, 1 to keep them.
        scale: The greatest ``scale`` in training, then: longer and shorter side in pixels. The size of the first image
            for pipelines that don't resize.
        lost: The part of the objects that no location learns at these sizes.
    """

    factor: float
    scale: Size
    lost: float


def scale_for(
    assignment: Assignment, images: Iterable[tuple[np.ndarray, int, int]], most_lost: float = 0.01
) -> Proposal:
    """Return the smallest enlargement of a config's training images at which FCOS learns the objects.

    Args:
        assignment: Of the config.
        images: The boxes (x1, y1, x2, y2 in pixels, shape (G, 4)), the width and the height of each image with objects,
            or of a sample of a few hundred.
        most_lost: The part of the objects that may be lost. Where no enlargement up to 4 loses as few, the one that
            loses fewest is returned.

    Returns:
        Factor 1 where the config's own sizes do, or where there are no objects.
    """
    images = list(images)
    total = sum(len(boxes) for boxes, _, _ in images)
    scale = assignment.scale or (images[0][1:] if images else (0, 0))
    proposals = []
    for factor in FACTORS:
        learned = sum(assignment.learned(boxes, width, height, factor).sum() for boxes, width, height in images)
        larger = round(max(scale) * factor), round(min(scale) * factor)
        proposals.append(Proposal(factor, larger, 1 - float(learned) / total if total else 0.0))
        if proposals[-1].lost <= most_lost:
            break
    return min(proposals, key=lambda proposal: (proposal.lost > most_lost, proposal.lost, proposal.factor))


def _resize_of(transform: dict) -> mmcv.transforms.Resize:
    """Build a resizing transform; return the one within it that gets the scales that it draws."""
    built = TRANSFORMS.build(transform)
    return getattr(built, 'resize', built)


def _resized(resize: mmcv.transforms.Resize, width: int, height: int, scale: Size) -> Size:
    """Return the size (W, H) that an image is resized to by a scale."""
    if isinstance(resize, Resize):
        return resize.size(width, height, scale)
    return mmcv.rescale_size((width, height), scale) if resize.keep_ratio else scale


def _scales(transform: dict) -> Sequence[Size]:
    """Return the scales of a resizing transform, none of another transform."""
    scales = transform.get('scales') or transform.get('scale')
    if 'Resize' not in str(transform['type']) or scales is None:
        return []
    return [(a, b) for a, b in (scales if isinstance(scales[0], list | tuple) else [scales])]
