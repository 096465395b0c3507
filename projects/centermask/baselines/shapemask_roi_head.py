"""ShapeMask's mask branch: from a shape prior to a coarse and a fine mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.model import BaseModule, xavier_init
from mmengine.structures import InstanceData
from torch import Tensor, nn

from centermask.boxes import scale_factors
from centermask.mask_pasting import encode, paste
from centermask.mask_targets import has_outline
from centermask.structures.rle_masks import RLEMasks

from .shapemask_crop import ShapeMaskCrop
from .shapemask_mask_heads import CoarseMaskHead, FineMaskHead
from .shapemask_mask_losses import mask_loss, prior_loss
from .shapemask_outer_boxes import outer_boxes
from .shapemask_prior_head import ShapePriorHead
from .shapemask_targets import MaskTargets, targets_of_image

COARSE, FINE = 32, 128  # cells along each side of the masks


class ShapeMasks(NamedTuple):
    """The masks of R objects in their outer boxes."""

    prior_weights: Tensor  # (R, K)
    prior: Tensor  # (R, 32, 32)
    coarse: Tensor  # (R, 32, 32), logits
    fine: Tensor  # (R, 128, 128), logits


@MODELS.register_module()
class ShapeMaskRoIHead(BaseModule):
    """Masks of boxes, within outer boxes 1.25 times as wide and high.

    Class c of the data is class c + 1 here, after the background.

    Args:
        num_classes: number of classes.
        norm_cfg: config of the norm of the masks' convs.
        num_priors: K, shapes of each class.
        priors: file of the shapes, which training needs; see :func:`load_priors`. A checkpoint holds them.
        class_agnostic: whether all classes share one mask, for classes that learn from boxes alone. Priors are still
            those of the class.
        in_channels: channels of the pyramid.
        channels: of the mask branch.
        num_convs: 3×3 convs of each mask.
        train_cfg: ``num_masks``, objects of each image that learn masks; ``jitter``, standard deviation of the noise in
            their boxes, in parts of the sides; ``loss_weights`` of the prior, the coarse and the fine mask; and
            ``mask_classes``, labels whose masks are learned, None for all.
        test_cfg: ``mask_thr_binary``, and ``mask_format`` as for :class:`CenterMaskRoIHead`.
    """

    def __init__(
        self,
        num_classes: int,
        norm_cfg: dict,
        num_priors: int = 20,
        priors: str | None = None,
        class_agnostic: bool = False,
        in_channels: int = 256,
        channels: int = 128,
        num_convs: int = 4,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.class_agnostic = class_agnostic
        self.train_cfg, self.test_cfg = train_cfg or {}, test_cfg or {}
        self.crop = ShapeMaskCrop(COARSE, in_channels)
        self.feature = nn.Linear(in_channels, channels)
        self.prior_head = ShapePriorHead(num_classes, num_priors, priors, class_agnostic, channels, COARSE)
        masks = 1 if class_agnostic else num_classes + 1
        self.coarse_head = CoarseMaskHead(masks, channels, num_convs, norm_cfg)
        self.fine_head = FineMaskHead(masks, channels, num_convs, norm_cfg, FINE // COARSE)

    def init_weights(self) -> None:
        """Draw the weights and read the priors."""
        super().init_weights()
        xavier_init(self.feature, distribution='uniform')

    def forward(self, x: Sequence[Tensor], images: Tensor, boxes: Tensor, outer: Tensor, classes: Tensor) -> ShapeMasks:
        """Return the masks of R objects.

        Args:
            x: P3 to P7, shape (N, C, H, W) each.
            images: each object's image in the batch, shape (R,).
            boxes, outer: x1, y1, x2, y2 in pixels of the network's input, shape (R, 4).
            classes: 0 is the background, shape (R,).
        """
        features = self.features(x, torch.cat([images[:, None].to(outer), outer], 1))
        return self.masks_of_features(features, boxes, outer, classes)

    def features(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return the features (R, 128, 32, 32) of P3 to P7 in boxes (R, 5): image in the batch, x1, y1, x2, y2."""
        crops = self.crop(x, rois).to(self.feature.weight.dtype)  # (R, 256, 32, 32)
        return self.feature(crops.movedim(1, 3)).movedim(3, 1)

    def masks_of_features(self, features: Tensor, boxes: Tensor, outer: Tensor, classes: Tensor) -> ShapeMasks:
        """Return the masks of R objects from the features (R, 128, 32, 32) in their outer boxes."""
        channel = torch.zeros_like(classes) if self.class_agnostic else classes
        weights, prior = self.prior_head(features, boxes, outer, classes)
        coarse = self.coarse_head(features, prior, channel)
        return ShapeMasks(weights, prior, coarse, self.fine_head(features, coarse, channel))

    def loss(self, x: Sequence[Tensor], data_samples: SampleList) -> dict[str, Tensor]:
        """Return ``loss_prior``, ``loss_coarse`` and ``loss_fine``, scalars.

        Args:
            x: P3 to P7.
            data_samples: the images' metainfo and ground truth.
        """
        targets = [self.targets(sample.gt_instances, sample.batch_input_shape) for sample in data_samples]
        return self.loss_of_targets(x, targets)

    def targets(self, objects: InstanceData, input_size: tuple[int, int]) -> MaskTargets:
        """Return the targets of ``num_masks`` objects of an image, drawn at random from those with an outline."""
        number = self.train_cfg['num_masks']
        outlined = np.flatnonzero([has_outline(mask) for mask in objects.masks.masks])
        chosen = torch.from_numpy(outlined)[torch.randperm(len(outlined))[:number]].to(objects.bboxes.device)
        noise = torch.randn(number, 4, device=objects.bboxes.device) * self.train_cfg['jitter']
        return targets_of_image(objects[chosen], noise, input_size, COARSE, FINE, self.train_cfg.get('mask_classes'))

    def loss_of_targets(self, x: Sequence[Tensor], targets: Sequence[MaskTargets]) -> dict[str, Tensor]:
        """Return the losses of levels P3 to P7 with the targets of each image."""
        images = torch.arange(len(targets), device=x[0].device).repeat_interleave(len(targets[0].boxes))
        joined = MaskTargets(*(torch.cat(parts) for parts in zip(*targets, strict=True)))
        masks = self(x, images, joined.boxes, joined.outer, joined.classes)
        prior_weight, coarse_weight, fine_weight = self.train_cfg['loss_weights']
        return dict(
            loss_prior=prior_weight * prior_loss(masks.prior.float(), joined.coarse, joined.valid),
            loss_coarse=coarse_weight * mask_loss(masks.coarse.float(), joined.coarse, joined.valid),
            loss_fine=fine_weight * mask_loss(masks.fine.float(), joined.fine, joined.valid),
        )

    def predict(
        self, x: Sequence[Tensor], detections: list[InstanceData], data_samples: SampleList, rescale: bool = False
    ) -> list[InstanceData]:
        """Return each image's detections with ``masks``.

        Args:
            x: P3 to P7.
            detections: boxes in pixels of the network's input.
            data_samples: the images' metainfo.
            rescale: whether to return boxes and masks in pixels of the original images.
        """
        metas = [sample.metainfo for sample in data_samples]
        outer = [
            outer_boxes(image.bboxes, meta['batch_input_shape']) for image, meta in zip(detections, metas, strict=True)
        ]
        counts = [len(image) for image in detections]
        masks = self(
            x,
            torch.cat([torch.full_like(image.labels, i) for i, image in enumerate(detections)]),
            torch.cat([image.bboxes for image in detections]),
            torch.cat(outer),
            torch.cat([image.labels for image in detections]) + 1,
        )
        probabilities = masks.fine.float().sigmoid().split(counts)
        for image, frames, cells, meta in zip(detections, outer, probabilities, metas, strict=True):
            if rescale:
                factors = scale_factors(frames, meta)
                image.bboxes, frames = image.bboxes / factors, frames / factors
            image.masks = self.postprocess(cells, frames, meta['ori_shape' if rescale else 'img_shape'][:2])
        return detections

    def postprocess(self, probabilities: Tensor, outer: Tensor, image_size: tuple[int, int]) -> Tensor | RLEMasks:
        """Return the masks of an image from those in outer boxes, by the rule of the paper recipe of CenterMask.

        Args:
            probabilities: shape (N, 128, 128).
            outer: x1, y1, x2, y2 in pixels of the image, shape (N, 4).
            image_size: its height and width.
        """
        arguments = (
            probabilities.detach().cpu().numpy(),
            outer.detach().cpu().numpy(),
            image_size,
            self.test_cfg['mask_thr_binary'],
            'resized',
        )
        if self.test_cfg.get('mask_format') == 'rle':
            return encode(*arguments)
        return torch.from_numpy(paste(*arguments)).to(outer.device)
