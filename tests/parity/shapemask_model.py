"""Arrays of the whole ShapeMask, in testing and of one training step, under the names of ``shapemask_model.npz``."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.baselines.shapemask import ShapeMask
from centermask.baselines.shapemask_outer_boxes import outer_boxes
from centermask.baselines.shapemask_targets import targets_of_image
from centermask.boxes import clip_boxes
from parity.shapemask_boxes import LEVELS, Arrays, assign
from parity.shapemask_weights import key_of, load_shapemask_weights, made_priors

BOX_WEIGHT, WEIGHT_DECAY = 50, 1e-4


def build_shapemask(cfg: ConfigDict) -> ShapeMask:
    """Build a config's model as the release's whose numbers were computed, with synthetic weights.

    It has ResNet-50, TensorFlow's padding, COCO's 90 ids as classes and made priors.
    """
    cfg = deepcopy(cfg)
    cfg.num_classes = 90
    cfg.backbone.update(depth=50, same_padding=True, init_cfg=None)
    cfg.neck.conv_cfg = dict(type='Conv2dAdaptivePadding')
    cfg.roi_head.update(num_priors=20, priors=None)
    model = MODELS.build(cfg)
    load_shapemask_weights(model)
    model.roi_head.prior_head.priors.copy_(torch.from_numpy(made_priors(91, 20)))
    return model.eval()


def compute_eval(model: ShapeMask, image: np.ndarray) -> Arrays:
    """Return the maps and the detections of an image (H, W, 3), BGR, under their names without ``eval.``"""
    x, samples = _inputs(model.eval(), image)
    with torch.no_grad():
        stages = model.backbone(x)
        pyramid = model.neck(stages)
        logits, deltas = model.bbox_head(pyramid)
        (found,) = model.bbox_head.predict(pyramid, samples)
        outer = outer_boxes(found.bboxes, x.shape[-2:])
        image_index = torch.zeros(len(found), dtype=torch.long)
        masks = model.roi_head(pyramid, image_index, found.bboxes, outer, found.labels + 1)
        arrays = {
            'det.count': torch.tensor(len(found)),
            'det.boxes': found.bboxes,
            'det.outer_boxes': outer,
            'det.scores': found.scores,
            'det.labels': found.labels + 1,
            'det.prior_weights': masks.prior_weights,
            'det.priors': masks.prior,
            'det.coarse': masks.coarse,
            'det.fine': masks.fine,
        }
        pasted = model.roi_head.pasted(masks.fine.sigmoid(), outer, image.shape[:2])
    arrays['det.mask_areas'] = pasted.sum((1, 2))
    arrays |= {f'backbone.c{i}': stage for i, stage in enumerate(stages, 2)}
    for kind, maps in (('fpn', pyramid), ('cls', logits), ('reg', deltas)):
        arrays |= {f'{kind}.{name}': level for name, level in zip(LEVELS, maps, strict=True)}
    return {name: array.numpy() for name, array in arrays.items()}


def compute_training(model: ShapeMask, image: np.ndarray, expected: Mapping[str, np.ndarray]) -> Arrays:
    """Return the arrays of one training step, under their names without ``train.``

    The gradients of frozen parameters are computed too. The step doesn't change weights, only moving statistics.

    Args:
        model: with the weights of the comparison.
        image: shape (H, W, 3), BGR.
        expected: the same arrays of the release, with the inputs ``gt_boxes``, ``gt_labels``, ``gt_masks`` and
            ``noise`` among them.
    """
    learned = [value for value in model.parameters() if value.requires_grad]
    decay = WEIGHT_DECAY / 2 * sum(value.detach().double().square().sum() for value in learned)
    frozen = sorted(key_of(name) for name, value in model.named_parameters() if not value.requires_grad)
    x, _ = _inputs(model, image)
    size = tuple(x.shape[-2:])
    boxes, labels, noise = (torch.from_numpy(expected[name]) for name in ('gt_boxes', 'gt_labels', 'noise'))
    masks = np.unpackbits(expected['gt_masks'], axis=-1, count=size[1])
    objects = InstanceData(bboxes=boxes, labels=labels - 1, masks=BitmapMasks(masks, *size))
    targets = targets_of_image(objects[: len(noise)], noise, size)

    model.train().requires_grad_()  # train() freezes the first convs
    pyramid = model.extract_feat(x)
    before = {name: value.clone() for name, value in model.roi_head.state_dict().items()}
    box_losses = model.bbox_head.loss(
        pyramid, [DetDataSample(metainfo=dict(batch_input_shape=size), gt_instances=objects)]
    )
    mask_losses = model.roi_head.loss_of_targets(pyramid, [targets])
    total = sum([*box_losses.values(), *mask_losses.values()])
    total.backward()
    after = {key_of(name): value.numpy() for name, value in model.state_dict().items()}
    model.roi_head.load_state_dict(before)  # the same batch once more, for the masks themselves
    with torch.no_grad():
        images = torch.zeros(len(noise), dtype=torch.long)
        found = model.roi_head(pyramid, images, targets.boxes, targets.outer, targets.classes)
    losses = {**box_losses, **mask_losses}
    weights = dict(zip(('prior', 'coarse', 'fine'), model.roi_head.train_cfg['loss_weights'], strict=True))
    weights |= dict(cls=1, bbox=BOX_WEIGHT)
    arrays: dict[str, Any] = {
        'boxes': targets.boxes,
        'outer_boxes': targets.outer,
        'classes': targets.classes,
        'targets32': np.packbits(targets.coarse.numpy().astype(bool), axis=-1),
        'targets128': np.packbits(targets.fine.numpy().astype(bool), axis=-1),
        'priors': found.prior,
        'coarse': found.coarse,
        'fine': found.fine,
        'frozen': np.array(frozen),
        'loss.total': total,
        'loss.l2': decay,
        **assign(model.bbox_head, size, clip_boxes(boxes, (size[0] - 1, size[1] - 1)), labels),
    }
    for name, weight in weights.items():
        arrays[f'loss.{name.replace("bbox", "box")}'] = losses[f'loss_{name}'] / weight
    arrays |= {f'fpn.{name}': level for name, level in zip(LEVELS, pyramid, strict=True)}
    for name, value in model.named_parameters():
        arrays[f'grad.{key_of(name)}'] = torch.tensor(0.0) if value.grad is None else value.grad.norm()
    arrays |= {f'after.{key}': value for key, value in after.items() if key.endswith(('running_mean', 'running_var'))}
    return {name: array.detach().numpy() if isinstance(array, Tensor) else array for name, array in arrays.items()}


def _inputs(model: ShapeMask, image: np.ndarray) -> tuple[Tensor, list[DetDataSample]]:
    """Return an image (H, W, 3), BGR, as a batch of one, normalised and padded, and its sample."""
    size = image.shape[:2]
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size))
    inputs = torch.from_numpy(image).permute(2, 0, 1)
    data = model.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]))
    return data['inputs'], data['data_samples']
