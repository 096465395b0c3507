"""Fusion of instances and semantic classes to one panoptic map (Panoptic FPN, arXiv 1801.00868, section 7)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.models.seg_heads.panoptic_fusion_heads import HeuristicFusionHead
from mmdet.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from .structures.rle_masks import RLEMasks


@MODELS.register_module()
class PanopticFusion(HeuristicFusionHead):
    """Lay instances by falling score, then stuff where no instance is.

    A pixel of an instance is ``label + INSTANCE_OFFSET * id``, with ids from 1 on in the order of laying. One of stuff
    is its label, from the number of things on; one of nothing (void) is the number of all classes.

    Unlike in MMDetection, instances below a score are left out, semantic class 0 is every thing, and shares are exact:
    one that equals ``mask_overlap`` isn't above it, however large the mask.

    Args:
        score_thr: least score of an instance, the box head's.
        mask_overlap: largest share of an instance's mask that better ones may have taken.
        stuff_area_limit: least number of pixels of a stuff class.
        **kwargs: ``num_things_classes`` and ``num_stuff_classes``.

    Raises:
        ValueError: for more classes than MMDetection's panoptic maps can hold.
    """

    def __init__(
        self, score_thr: float = 0.5, mask_overlap: float = 0.5, stuff_area_limit: int = 4096, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.score_thr = score_thr
        self.mask_overlap = mask_overlap
        self.stuff_area_limit = stuff_area_limit
        if self.num_classes >= INSTANCE_OFFSET:
            raise ValueError(f'a panoptic map holds up to {INSTANCE_OFFSET - 1} classes, not {self.num_classes}')

    def _predict_single(self, mask_results: InstanceData, seg_preds: Tensor) -> PixelData:
        """Return the panoptic map of one image as ``sem_seg``, int32, shape (1, H, W).

        The instances get their ids as ``segment_ids``, 0 of those that were left out.

        Args:
            mask_results: ``scores``, ``labels`` and ``masks``, bool (N, H, W) or :class:`RLEMasks`.
            seg_preds: semantic classes, shape (H, W).
        """
        semantic = seg_preds.cpu().numpy()
        laid, ids = self._lay_masks(mask_results, self.mask_overlap)
        areas = np.bincount(semantic[laid == 0], minlength=1 + self.num_stuff_classes)
        labels = np.arange(1 + self.num_stuff_classes, dtype=np.int32) + self.num_things_classes - 1
        labels[areas < self.stuff_area_limit] = labels[0] = self.num_classes
        panoptic = torch.from_numpy(np.where(laid > 0, laid, labels[semantic])[None])
        mask_results.segment_ids = torch.from_numpy(ids).to(mask_results.labels.device)
        return PixelData(sem_seg=panoptic.to(seg_preds.device))

    def _lay_masks(self, mask_results: InstanceData, overlap_thr: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
        """Return the map of the instances, int32 (H, W) with 0 elsewhere, and their ids (N,)."""
        laid = np.zeros(mask_results.masks.shape[-2:], np.int32)
        ids = np.zeros(len(mask_results), np.int64)
        scores = mask_results.scores.cpu().double().numpy()
        labels = mask_results.labels.tolist()
        masks = mask_results.masks if isinstance(mask_results.masks, RLEMasks) else mask_results.masks.cpu().numpy()
        for index in self._by_score(scores):
            mask, left, top = masks[index].crop() if isinstance(masks, RLEMasks) else (masks[index], 0, 0)
            place = laid[top : top + mask.shape[0], left : left + mask.shape[1]]
            area, free = np.count_nonzero(mask), mask & (place == 0)
            if area and (area - np.count_nonzero(free)) / area <= overlap_thr:
                ids[index] = ids.max() + 1
                place[free] = labels[index] + INSTANCE_OFFSET * ids[index]
        return laid, ids

    def _by_score(self, scores: np.ndarray) -> Iterator[int]:
        """Yield the indices of the scores (N,) from the largest to the least one from ``score_thr`` on."""
        return (index for index in np.argsort(-scores, kind='stable') if scores[index] >= self.score_thr)
