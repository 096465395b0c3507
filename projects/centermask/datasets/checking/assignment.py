"""What a config's heads make of boxes: which locations learn them, and from which level their masks are pooled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import mmcv
import numpy as np
import torch
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.arguments import whole_numbers
from centermask.datasets.coco import innermost
from centermask.datasets.images import MAX_PIXELS, valid_max_pixels
from centermask.datasets.transforms import ShorterSideResize
from centermask.utils.errors import InputError, config_errors

Size = tuple[int, int]


class Assignment:
    """FCOS's targets and Eq. 2 at the sizes that a config's training resizes images to.

    Args:
        cfg: a config whose box head gives FCOS targets.

    Attributes:
        max_pixels: the most pixels of an image that training decodes.
        strides: of the levels that masks are pooled from; none for a config without a mask branch.

    Raises:
        InputError: the config has no such head, or its heads can't be built.
    """

    def __init__(self, cfg: Config) -> None:
        model = cfg.get('model')
        head = model.get('bbox_head') if isinstance(model, dict) else None
        if not isinstance(head, dict) or 'FCOS' not in str(head.get('type')):
            raise InputError(f'The config {cfg.filename} has no FCOS box head: give one of CenterMask.')
        if not isinstance(cfg.get('train_dataloader'), dict):
            raise InputError(f'The config {cfg.filename} has no train_dataloader: give one of CenterMask.')
        init_default_scope('mmdet')
        with config_errors(cfg.filename):
            self._head = MODELS.build(dict(head, num_classes=1, train_cfg=None, test_cfg=None))
            extractor = (cfg.model.get('roi_head') or {}).get('mask_roi_extractor')
            self._extractor = MODELS.build(extractor) if extractor else None
            self._divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
            whole_numbers(cfg.model.type, {'data_preprocessor.pad_size_divisor': self._divisor})
        self.strides: Sequence[int] = extractor.featmap_strides if extractor else ()
        dataset = innermost(cfg.train_dataloader)
        with config_errors(cfg.filename, 'train_dataloader'):
            self.max_pixels = valid_max_pixels(dataset.get('max_pixels', MAX_PIXELS))
            self._pipeline = dataset['pipeline']
            for transform in self._pipeline:
                if 'Resize' in str(transform['type']):
                    TRANSFORMS.build(transform)  # which refuses scales that aren't any

    def sizes(self, width: int, height: int) -> list[Size]:
        """Width and height of an image after each resizing that training may choose, the greatest first."""
        sizes = {size for transform in self._pipeline for size in _resized(transform, width, height)}
        return sorted(sizes or {(width, height)}, key=lambda size: -size[0] * size[1])

    def learned(self, boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Tell which objects of an image a location learns, at one of the sizes at least.

        Args:
            boxes: x1, y1, x2, y2 in pixels of the image, shape (G, 4).
            width, height: of the image.

        Returns:
            Whether an object is learned among the others, and whether it would be alone, shapes (G,).
        """
        among, alone = np.zeros(len(boxes), bool), np.zeros(len(boxes), bool)
        for size in self.sizes(width, height):
            if among.all():
                break
            resized = self._resize(boxes, (width, height), size)
            among |= self._at_size(resized, size)
        alone |= among
        for size in self.sizes(width, height):
            resized = self._resize(boxes, (width, height), size)
            for i in np.flatnonzero(~alone):
                alone[i] = self._at_size(resized[i : i + 1], size)[0]
        return among, alone

    def levels(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Index into ``strides`` of each object's level by the extractor's rule, at the greatest size, shape (G,)."""
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

    def _at_size(self, boxes: Tensor, size: Size) -> np.ndarray:
        """Whether a location of the padded image learns each box, shape (G,)."""
        width, height = (math.ceil(side / self._divisor) * self._divisor for side in size)
        maps = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in self._head.strides]
        points = self._head.prior_generator.grid_priors(maps, dtype=torch.float32, device='cpu')
        # As its class each object has a number of its own; num_classes (1) stands for the background.
        objects = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)) + 2)
        labels, _ = self._head.get_targets(points, [objects])
        found = torch.cat(labels).unique() - 2
        learned = np.zeros(len(boxes), bool)
        learned[found[found >= 0].numpy()] = True
        return learned


def _resized(transform: dict, width: int, height: int) -> Iterator[Size]:
    """The sizes that a resizing transform may give, none for another transform."""
    scales = transform.get('scales') or transform.get('scale')
    if 'Resize' not in str(transform['type']) or scales is None:
        return
    kind = TRANSFORMS.get(transform.get('resize_type') or transform['type'])
    for scale in scales if isinstance(scales[0], list | tuple) else [scales]:
        if kind and issubclass(kind, ShorterSideResize):
            yield kind.size(width, height, scale)
        elif transform.get('keep_ratio'):
            yield mmcv.rescale_size((width, height), tuple(scale))
        else:
            yield tuple(scale)
