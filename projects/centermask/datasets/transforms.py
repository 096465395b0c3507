"""The geometry of the paper recipe, which counts pixels: a box over columns 3 to 5 ends at 5, not at 6.

The star recipe needs none of it: its resizing is MMDetection's ``Resize(keep_ratio=True, backend='pillow')``, which
gives Detectron2's sizes but for sides that fall on exactly half a pixel.
"""

from __future__ import annotations

import mmcv
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import RandomFlip, Resize
from mmdet.registry import TRANSFORMS
from mmdet.structures.mask import PolygonMasks


@TRANSFORMS.register_module()
class FloorResize(Resize):
    """Resize by the paper recipe's rule: the shorter side is exact and the longer one rounded down.

    Where the longer side would pass its limit, the shorter one is made smaller first, rounded to nearest. The filter is
    PIL's bilinear, antialiased. Usable wherever a ``Resize`` is, as the ``resize_type`` of ``RandomResize`` too.

    Args:
        scale: Two lengths in pixels: the greatest longer side and the shorter side, in any order.
    """

    def __init__(self, scale: tuple[int, int]) -> None:
        super().__init__(scale, keep_ratio=True, backend='pillow')

    @staticmethod
    def size(width: int, height: int, scale: tuple[int, int]) -> tuple[int, int]:
        """Width and height after resizing, in pixels."""
        shorter, longer = min(width, height), max(width, height)
        new_shorter = min(scale)
        if longer / shorter * new_shorter > max(scale):
            new_shorter = round(max(scale) * shorter / longer)
        new_longer = int(new_shorter * longer / shorter)
        return (new_shorter, new_longer) if width < height else (new_longer, new_shorter)

    def _resize_img(self, results: dict) -> None:
        height, width = results['img'].shape[:2]
        img, w_scale, h_scale = mmcv.imresize(
            results['img'], self.size(width, height, results['scale']), return_scale=True, backend=self.backend
        )
        results.update(img=img, img_shape=img.shape[:2], scale_factor=(w_scale, h_scale), keep_ratio=True)

    def _resize_masks(self, results: dict) -> None:
        if results.get('gt_masks') is not None:
            results['gt_masks'] = results['gt_masks'].resize(results['img_shape'])


@TRANSFORMS.register_module()
class InclusiveBoxes(BaseTransform):
    """Make ground-truth boxes end at their last pixel, x + w - 1, and drop those then empty, as the paper recipe does.

    Goes right after ``LoadAnnotations``. Boxes are clipped to [0, W - 1] x [0, H - 1].
    """

    def transform(self, results: dict) -> dict:
        height, width = results['img_shape']
        boxes = results['gt_bboxes'].tensor
        boxes[:, 2:] = torch.maximum(boxes[:, 2:] - 1, boxes[:, :2])
        boxes[:, 0::2].clamp_(0, width - 1)
        boxes[:, 1::2].clamp_(0, height - 1)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1).numpy()
        if not kept.all():
            for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_masks', 'gt_ignore_flags'):
                if key in results:
                    results[key] = results[key][kept]
        return results


@TRANSFORMS.register_module()
class InclusiveFlip(RandomFlip):
    """Flip horizontally with columns counted as pixels: x goes to W - x - 1, for boxes and polygons alike.

    The key ``flip_offset`` (1) tells test-time augmentation which rule to undo.

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
            masks: PolygonMasks = results['gt_masks']
            for polygons in masks:
                for polygon in polygons:
                    polygon[0::2] -= 1
