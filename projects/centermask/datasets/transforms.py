"""Resizing by the two recipes' rules, and the legacy boxes of the paper recipe.

In the paper recipe a box over columns 3 to 5 ends at 5, not at 6. The CenterMask* recipe uses MMDetection's
``RandomFlip``; MMDetection's ``Resize`` differs slightly from both recipes.
"""

from __future__ import annotations

from typing import Literal

import mmcv
import mmdet.datasets.transforms
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import RandomFlip
from mmdet.registry import TRANSFORMS
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from PIL import Image

from centermask.datasets.images import as_read
from centermask.mask_targets import has_outline
from centermask.registry import TRANSFORMS as OWN_TRANSFORMS


def round_size(width: int, height: int, scale: tuple[int, int]) -> tuple[int, int]:
    """Return width and height, in pixels, by the CenterMask* recipe: both sides rounded to nearest.

    MMDetection's ``Resize`` computes one factor from the original lengths. Detectron2 multiplies a second time where
    the longer side exceeds its limit, which rounds differently: 640 x 360 becomes 1000 x 562 in Lite, not 563.
    """
    factor = min(scale) / min(width, height)
    lengths = [min(scale) if side == min(width, height) else side * factor for side in (width, height)]
    if max(lengths) > max(scale):
        factor = max(scale) / max(lengths)
        lengths = [length * factor for length in lengths]
    return max(2, int(lengths[0] + 0.5)), max(2, int(lengths[1] + 0.5))


def floor_size(width: int, height: int, scale: tuple[int, int]) -> tuple[int, int]:
    """Return width and height, in pixels, by the paper recipe: the shorter side exact, the longer one rounded down.

    Where the longer side would exceed its limit, the shorter one is reduced first, rounded to nearest.
    """
    shorter, longer = min(width, height), max(width, height)
    new_shorter = min(scale)
    if longer / shorter * new_shorter > max(scale):
        new_shorter = round(max(scale) * shorter / longer)
    # The longer side may exceed its limit by a pixel, as in the release, but not because the shorter one grew.
    new_longer = int(new_shorter * longer / shorter) if new_shorter >= 2 else max(scale)
    new_shorter = max(2, new_shorter)
    return (new_shorter, new_longer) if width < height else (new_longer, new_shorter)


@OWN_TRANSFORMS.register_module()
@TRANSFORMS.register_module(name='RoundResize')  # its name until version 0.2
class Resize(mmdet.datasets.transforms.Resize):
    """Resize to a shorter side, with a limit on the longer one, by the rule of one of the recipes.

    No side gets shorter than two pixels: torch refuses the flipped array of a single line.

    Programs that set the size of MMDetection's ``Resize`` find it in a config by its type. ``RandomResize`` and
    ``RandomChoiceResize`` take it as ``resize_type='centermask.Resize'``.

    Args:
        scale: Two lengths in pixels: the greatest longer side and the shorter side, in any order. ``RandomResize`` and
            ``RandomChoiceResize`` pass 0 and set each image's scale later.
        rounding: ``'nearest'`` for :func:`round_size`, ``'down'`` for :func:`floor_size`.
        keep_ratio: MMDetection's argument, for programs that read it.
        backend: ``'pillow'`` for PIL's antialiased bilinear filter, which both recipes use, or ``'cv2'``.

    Raises:
        ValueError: A length is under two pixels.
    """

    def __init__(
        self,
        scale: tuple[int, int] | Literal[0],
        rounding: Literal['nearest', 'down'] = 'nearest',
        keep_ratio: Literal[True] = True,
        backend: Literal['pillow', 'cv2'] = 'pillow',
    ) -> None:
        if scale and min(scale) < 2:
            raise ValueError(f"{type(self).__name__}'s scale is two lengths from 2 pixels up, not {scale}")
        super().__init__(scale, keep_ratio=keep_ratio, backend=backend)
        self.size = {'nearest': round_size, 'down': floor_size}[rounding]

    def transform(self, results: dict) -> dict:
        """Resize; ``scale_factor`` becomes the product of all resizes, which MMDetection's sets to the last."""
        before = results.get('scale_factor', (1.0, 1.0))
        results = super().transform(results)
        results['scale_factor'] = (results['scale_factor'][0] * before[0], results['scale_factor'][1] * before[1])
        return results

    def _resize_img(self, results: dict) -> None:
        image = results['img']
        if results.get('img_path', '') is None:  # an array, not a file
            image = as_read(image)
        height, width = image.shape[:2]
        new_width, new_height = self.size(width, height, results['scale'])
        if self.backend == 'pillow' and image.dtype != np.uint8:  # after PhotoMetricDistortion or CopyPaste
            channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(image, 2, 0)]
            resized = [channel.resize((new_width, new_height), Image.Resampling.BILINEAR) for channel in channels]
            img = np.stack([np.asarray(channel) for channel in resized], axis=2)
        else:
            img = mmcv.imresize(image, (new_width, new_height), backend=self.backend)
        scale_factor = (new_width / width, new_height / height)
        results.update(img=img, img_shape=img.shape[:2], scale_factor=scale_factor, keep_ratio=True)

    def _resize_masks(self, results: dict) -> None:
        if results.get('gt_masks') is not None:
            # Bitmaps are rounded to 0 and 1; to nearest they would move by half a pixel.
            results['gt_masks'] = results['gt_masks'].resize(results['img_shape'], 'bilinear')

    def _resize_seg(self, results: dict) -> None:
        if results.get('gt_seg_map') is not None:
            # To the nearest centre of a pixel, as PIL does; OpenCV takes corners, half a pixel beside the polygons.
            height, width = results['img_shape']
            resized = mmcv.imresize(results['gt_seg_map'], (width, height), interpolation='nearest', backend='pillow')
            results['gt_seg_map'] = resized


@TRANSFORMS.register_module()
class FloorResize(Resize):
    """The paper recipe's ``Resize``, as it was named until version 0.2."""

    def __init__(self, scale: tuple[int, int] | Literal[0], backend: Literal['pillow', 'cv2'] = 'pillow') -> None:
        super().__init__(scale, 'down', backend=backend)


@TRANSFORMS.register_module()
class LegacyBoxes(BaseTransform):
    """End ground-truth boxes at their last pixel, x + w - 1, and drop those that are then empty (paper recipe).

    It comes after ``LoadAnnotations`` and MMDetection's augmentations, before ``LegacyFlip``. Boxes are clipped to
    [0, W - 1] x [0, H - 1].
    """

    def transform(self, results: dict) -> dict:
        height, width = results['img_shape']
        boxes = results['gt_bboxes'].tensor
        boxes[:, 2:] = torch.maximum(boxes[:, 2:] - 1, boxes[:, :2])
        boxes[:, 0::2].clamp_(0, width - 1)
        boxes[:, 1::2].clamp_(0, height - 1)
        return _keep(results, (boxes[:, 2:] > boxes[:, :2]).all(1).numpy())


def _keep(results: dict, kept: np.ndarray) -> dict:
    """Drop the objects that ``kept``, bool, doesn't have."""
    if not kept.all():
        for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_masks', 'gt_ignore_flags'):
            if key in results:
                results[key] = results[key][kept]
    return results


@TRANSFORMS.register_module()
class MaskBoxes(BaseTransform):
    """Set boxes to those of their masks, and drop objects whose masks are empty.

    It comes after MMDetection's steps that cut masks (``MinIoURandomCrop``, ``RandomCrop``, ``RandomErasing``), which
    clip the boxes of whole objects, and before ``LegacyBoxes``. Objects that had no outline are dropped too, since they
    look the same.
    """

    def transform(self, results: dict) -> dict:
        masks, ignored = results['gt_masks'], results['gt_ignore_flags']
        outlined = np.array([has_outline(mask) for mask in masks.masks], dtype=bool) & ~ignored
        boxes = masks.get_bboxes(type(results['gt_bboxes'])).tensor
        results['gt_bboxes'].tensor[outlined] = boxes[outlined]
        return _keep(results, outlined | ignored)


@TRANSFORMS.register_module()
class LegacyFlip(RandomFlip):
    """Flip horizontally with columns counted as pixels: x goes to W - x - 1, for boxes and masks alike.

    A bitmap moves with its object's polygon, a column to the left of the flipped image. The key ``flip_offset`` (1) is
    for test-time augmentation, which undoes the flip by the same rule.

    Args:
        prob: Probability of a flip.
    """

    def __init__(self, prob: float) -> None:
        super().__init__(prob, 'horizontal')

    def transform(self, results: dict) -> dict:
        results['flip_offset'] = 1
        return super().transform(results)

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        if results.get('gt_bboxes') is not None:
            results['gt_bboxes'].translate_((-1, 0))
        if results.get('gt_masks') is not None:
            masks: BitmapMasks | PolygonMasks = results['gt_masks']
            if isinstance(masks, BitmapMasks):
                masks.masks = np.pad(masks.masks[:, :, 1:], ((0, 0), (0, 0), (0, 1)))
            else:
                for polygons in masks:
                    for polygon in polygons:
                        polygon[0::2] -= 1
