"""Arrays of the whole ShapeMask in testing and in one training step, under the expected arrays' names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.baselines.shapemask import ShapeMask
from centermask.baselines.shapemask_mask_losses import mask_loss, prior_loss
from centermask.baselines.shapemask_outer_boxes import outer_boxes
from centermask.baselines.shapemask_targets import targets_of_image
from centermask.boxes import clip_boxes
from parity.centermask import outputs_of
from parity.comparison import Arrays
from parity.shapemask_boxes import LEVELS, assign
from parity.shapemask_masks import unpack
from parity.shapemask_weights import by_key, load_synthetic_weights, made_priors

WEIGHT_DECAY = 1e-4


def build_reference_model(cfg: ConfigDict) -> ShapeMask:
    """Build a config's model as the numbers have it, with synthetic weights.

    They are of ResNet-50, of 91 classes with the background, and of TensorFlow's padding.
    """
    cfg = ConfigDict(cfg, num_classes=90)
    cfg.backbone = dict(cfg.backbone, depth=50, same_padding=True, init_cfg=None)
    cfg.neck = dict(cfg.neck, conv_cfg=dict(type='Conv2dAdaptivePadding'))
    cfg.roi_head = dict(cfg.roi_head, num_priors=20, priors=None)
    model = MODELS.build(cfg)
    load_synthetic_weights(model, made_priors(91, 20))
    return model


@torch.no_grad()
def compute_testing(model: ShapeMask, image: np.ndarray) -> Arrays:
    """Return the stages, the levels, the box head's maps and the detections of a picture, BGR, (H, W, 3)."""
    model.eval()
    pixels, samples = _batch(model, image, None)
    stages = model.backbone(pixels)
    x = model.neck(stages)
    logits, deltas = model.bbox_head(x)
    arrays = {f'backbone.c{i}': stage for i, stage in enumerate(stages, 2)}
    for name, level, cls, reg in zip(LEVELS, x, logits, deltas, strict=True):
        arrays |= {f'fpn.{name}': level, f'cls.{name}': cls, f'reg.{name}': reg}

    (found,) = model.bbox_head.predict(x, samples, rescale=False)
    outer = outer_boxes(found.bboxes, samples[0].batch_input_shape)
    images = torch.zeros_like(found.labels)
    masks = model.roi_head(x, images, found.bboxes, outer, found.labels + 1)
    pasted = model.roi_head.postprocess(masks.fine.sigmoid(), outer, samples[0].batch_input_shape)
    arrays |= {
        'det.count': torch.tensor(len(found)),
        'det.boxes': found.bboxes,
        'det.outer_boxes': outer,
        'det.scores': found.scores,
        'det.labels': found.labels + 1,
        'det.prior_weights': masks.prior_weights,
        'det.priors': masks.prior,
        'det.coarse': masks.coarse,
        'det.fine': masks.fine,
        'det.mask_areas': pasted.sum((1, 2)),
    }
    return {f'eval.{name}': tensor.numpy() for name, tensor in arrays.items()}


def compute_training(model: ShapeMask, image: np.ndarray, expected: Mapping[str, np.ndarray]) -> Arrays:
    """Return one training step's targets, masks, losses, gradients and moving statistics.

    Args:
        model: it is changed by the step, as far as BN's statistics go.
        image: BGR, shape (H, W, 3).
        expected: ``gt_masks``, ``gt_boxes``, ``gt_labels`` and ``noise`` of the numbers, under ``train.``.
    """
    model.train()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    decay = sum(p.detach().double().square().sum() / 2 for name, p in model.named_parameters() if name not in frozen)
    for parameter in model.parameters():
        parameter.requires_grad_()  # the numbers have gradients of frozen weights too
    labels = torch.from_numpy(expected['train.gt_labels']) - 1
    masks = BitmapMasks(unpack(expected['train.gt_masks'], image.shape[1]), *image.shape[:2])
    objects = InstanceData(bboxes=torch.from_numpy(expected['train.gt_boxes']), labels=labels, masks=masks)
    pixels, samples = _batch(model, image, objects)
    noise = torch.from_numpy(expected['train.noise'])
    targets = targets_of_image(objects[: len(noise)], noise, samples[0].batch_input_shape)

    x = model.extract_feat(pixels)
    box_losses = model.bbox_head.loss(x, samples)
    with outputs_of(model.roi_head) as outputs:
        mask_losses = model.roi_head.loss_of_targets(x, [targets])
    (found,) = outputs
    total = sum(box_losses.values()) + sum(mask_losses.values())
    total.backward()
    size = tuple(samples[0].batch_input_shape)
    arrays = assign(model.bbox_head, size, clip_boxes(objects.bboxes, (size[0] - 1, size[1] - 1)), labels + 1) | {
        'frozen': np.array(sorted(by_key(dict.fromkeys(frozen)))),
        'boxes': targets.boxes,
        'outer_boxes': targets.outer,
        'classes': targets.classes,
        'targets32': targets.coarse,
        'targets128': targets.fine,
        'priors': found.prior,
        'coarse': found.coarse,
        'fine': found.fine,
        'loss.cls': box_losses['loss_cls'],
        'loss.box': box_losses['loss_bbox'] / 50,
        'loss.prior': prior_loss(found.prior, targets.coarse, targets.valid),
        'loss.coarse': mask_loss(found.coarse, targets.coarse, targets.valid),
        'loss.fine': mask_loss(found.fine, targets.fine, targets.valid),
        'loss.total': total,
        'loss.l2': WEIGHT_DECAY * decay,
    }
    arrays |= {f'fpn.{name}': level for name, level in zip(LEVELS, x, strict=True)}
    gradients = {name: parameter.grad.double().norm() for name, parameter in model.named_parameters()}
    arrays |= {f'grad.{key}': norm for key, norm in by_key(gradients).items()}
    arrays |= {f'after.{key}': value for key, value in by_key(dict(model.named_buffers())).items() if 'running' in key}
    return {f'train.{name}': a.detach().numpy() if isinstance(a, Tensor) else a for name, a in arrays.items()}


def _batch(model: ShapeMask, image: np.ndarray, objects: InstanceData | None) -> tuple[Tensor, list[DetDataSample]]:
    """Return a batch of one picture, normalised and padded."""
    sample = DetDataSample(metainfo=dict(img_shape=image.shape[:2], ori_shape=image.shape[:2], scale_factor=(1.0, 1.0)))
    if objects is not None:
        sample.gt_instances = objects
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    data = model.data_preprocessor(dict(inputs=[tensor], data_samples=[sample]), training=False)
    return data['inputs'], data['data_samples']
