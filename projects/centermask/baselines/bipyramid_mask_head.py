"""Mask head of TensorMask: the tensor bipyramid (section 4.3, Fig. 4) and the masks of windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from centermask.mask_pasting import encode, paste
from centermask.mask_targets import has_outline, rasterise_in_rois

from .swap_align2nat import Places, natural_masks, swap_align2nat
from .tensormask_box_head import tower
from .windows import locate


@MODELS.register_module()
class BipyramidMaskHead(BaseModule):
    """Masks of windows: on level k their sides are 2^k times those on the finest level.

    Training and testing compute the masks of positive windows and of detections alone.

    Args:
        in_channels: of the pyramid, whose level k has 2^k times the stride of the first.
        feat_channels: of the tower and of the convs after it.
        stacked_convs: of the tower.
        mask_sizes: sides of the masks on the finest level, one for each window at a place.
        positive_weight: factor of the loss of an object's cells.
        loss_weight: factor of the loss.
        test_cfg: with ``mask_thr_binary`` and ``mask_format``: ``'tensor'`` (default), bool masks (N, H, W), or
            ``'rle'``, an :class:`RLEMasks`.
        init_cfg: weights N(0, 0.01) by default.
    """

    def __init__(
        self,
        in_channels: int = 256,
        feat_channels: int = 128,
        stacked_convs: int = 4,
        mask_sizes: Sequence[int] = (11, 15),
        positive_weight: float = 1.5,
        loss_weight: float = 2.0,
        test_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Normal', layer='Conv2d', std=0.01))
        self.convs = tower(in_channels, feat_channels, stacked_convs)
        self.fuse = tower(feat_channels, feat_channels, 1)
        self.predictors = nn.ModuleDict({f'{size}': nn.Conv2d(feat_channels, size**2, 1) for size in mask_sizes})
        self.positive_weight = positive_weight
        self.loss_weight = loss_weight
        self.test_cfg: Any = test_cfg

    def forward(self, x: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return the masks of all windows: of each level, of each size V, shape (N, (2^k V)², H_k, W_k)."""
        features = [self.convs(level) for level in x]
        masks = []
        for k, level in enumerate(features):
            fused = self.bipyramid(features[0], level, k)
            masks.append([swap_align2nat(predictor(fused), 2**k) for predictor in self.predictors.values()])
        return masks

    def bipyramid(self, finest: Tensor, features: Tensor, level: int) -> Tensor:
        """Return the features of a level on the finest level's grid, shape (N, C, H, W).

        Args:
            finest: the tower's features of the finest level, shape (N, C, H, W).
            features: those of the level; of the finest again for itself.
            level: k.
        """
        if level:
            features = F.interpolate(features, scale_factor=2**level, mode='bilinear', align_corners=False)
            features = features[..., : finest.shape[2], : finest.shape[3]]
        return self.fuse(features + finest)

    def masks_of(self, x: Sequence[Tensor], numbers: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, for each level and window size that occurs, indices (m,) of windows and their masks (m, 2^k V, 2^k V).

        Args:
            x: levels of the pyramid.
            numbers: the windows of each image among all of it; the indices count them image by image.
        """
        windows = locate(numbers, [level.shape[-2:] for level in x], len(self.predictors))
        if not len(windows.levels):
            return
        finest = self.convs(x[0])
        for k in windows.levels.unique().tolist():
            fused = self.bipyramid(finest, self.convs(x[k]) if k else finest, k)
            for size, predictor in enumerate(self.predictors.values()):
                chosen = ((windows.levels == k) & (windows.sizes == size)).nonzero().squeeze(1)
                if len(chosen):
                    places = Places(*(axis[chosen] for axis in windows.places))
                    yield chosen, natural_masks(predictor(fused), 2**k, places)

    def loss(self, x: Sequence[Tensor], positives: list[InstanceData], data_samples: SampleList) -> dict[str, Tensor]:
        """Return ``loss_mask``, a scalar: the mean over the positive windows whose objects have an outline.

        Args:
            x: levels of the pyramid.
            positives: of each image, with ``windows``, ``numbers`` and ``objects`` as the box head returns them.
            data_samples: the images' ground truth.
        """
        batch_gt_instances, _, _ = unpack_gt_instances(data_samples)
        numbers, windows, objects = [], [], []
        for positive, gt_instances in zip(positives, batch_gt_instances, strict=True):
            masks = gt_instances.masks.masks
            outlined = positive.objects.new_tensor([has_outline(mask) for mask in masks], dtype=torch.bool)
            positive = positive[outlined[positive.objects]]
            numbers.append(positive.numbers)
            windows.append(positive.windows)
            objects += [masks[i] for i in positive.objects.tolist()]
        frames = torch.cat(windows).cpu().double().numpy()
        total = sum(parameter.sum() * 0 for parameter in self.parameters())  # reaches all of them, as DDP expects
        for chosen, logits in self.masks_of(x, numbers):
            of_level = chosen.tolist()
            targets = rasterise_in_rois([objects[i] for i in of_level], frames[of_level], logits.shape[-1])
            losses = F.binary_cross_entropy_with_logits(
                logits,
                torch.from_numpy(targets).to(logits.device),
                pos_weight=logits.new_tensor(self.positive_weight),
                reduction='none',
            )
            total = total + losses.mean((1, 2)).sum()
        return dict(loss_mask=self.loss_weight * total / max(len(objects), 1))

    def predict(
        self, x: Sequence[Tensor], detections: list[InstanceData], data_samples: SampleList, rescale: bool = False
    ) -> list[InstanceData]:
        """Return each image's detections with ``masks``, pasted into their windows.

        Args:
            x: levels of the pyramid.
            detections: with ``windows`` (N, 4) in pixels of the result and ``numbers`` (N,), which are taken out.
            data_samples: the images' metainfo.
            rescale: whether the result is in pixels of the original images.
        """
        probabilities = self.probabilities(x, [found.numbers for found in detections])
        return self.predict_by_feat(probabilities, detections, [sample.metainfo for sample in data_samples], rescale)

    def probabilities(self, x: Sequence[Tensor], numbers: Sequence[Tensor]) -> list[np.ndarray]:
        """Return the mask of each window, float32, shape (2^k V, 2^k V).

        Args:
            x, numbers: as :meth:`masks_of` takes them.
        """
        masks: dict[int, np.ndarray] = {}
        for chosen, logits in self.masks_of(x, numbers):
            masks |= zip(chosen.tolist(), logits.detach().sigmoid().cpu().numpy(), strict=True)
        return [masks[i] for i in range(len(masks))]

    def predict_by_feat(
        self, probabilities: list[np.ndarray], detections: list[InstanceData], img_metas: list[dict], rescale: bool
    ) -> list[InstanceData]:
        """Return each image's detections with ``masks``: those of the windows, pasted into the windows.

        Args:
            probabilities: of the windows of all images.
            detections, rescale: as :meth:`predict` takes them.
            img_metas: metainfo of the images.
        """
        masks = iter(probabilities)
        for found, meta in zip(detections, img_metas, strict=True):
            windows = found.pop('windows').cpu().numpy()
            del found.numbers
            image_size = meta['ori_shape' if rescale else 'img_shape'][:2]
            of_image = [*islice(masks, len(windows))]
            arguments = of_image, windows, image_size, self.test_cfg['mask_thr_binary'], 'sampled'
            if self.test_cfg.get('mask_format') == 'rle':
                found.masks = encode(*arguments)
            else:
                found.masks = torch.from_numpy(paste(*arguments)).to(found.bboxes.device)
        return detections
