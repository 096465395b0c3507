"""Arrays of ShapeMask's mask branch, computed from the inputs in the expected files, under the expected arrays' names.

Labels count from 1 there, as 0 is the background, and from 0 in the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.baselines.shapemask_mask_heads import instance_embedding
from centermask.baselines.shapemask_mask_losses import mask_loss, prior_loss
from centermask.baselines.shapemask_outer_boxes import jitter_boxes, outer_boxes, resample_in_outer_boxes
from centermask.baselines.shapemask_roi_head import ShapeMaskRoIHead
from centermask.baselines.shapemask_targets import sample_in_box, targets_of_image
from centermask.boxes import clip_boxes
from centermask.mask_pasting import paste
from parity.comparison import Arrays
from parity.shapemask_boxes import LEVELS, assign, build_box_head
from parity.shapemask_weights import load_synthetic_weights, made_priors

SIZE = (256, 384)  # of the made picture
# Classes, shapes of each, whether class-agnostic, and classes of the objects, for each case of the mask branch.
CASES = {
    'specific5': (5, 4, False, 'classes5'),
    'specific91': (91, 20, False, 'classes91'),
    'agnostic5': (5, 4, True, 'classes5'),
    'agnostic1': (1, 4, True, None),
    'noprior5': (5, 1, False, 'classes5'),
    'train5': (5, 4, False, 'classes5'),
}
# COCO's ids of the classes of PASCAL VOC.
VOC = (1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72)


def build_mask_head(cfg: Mapping, classes: int, priors: np.ndarray, agnostic: bool = False) -> ShapeMaskRoIHead:
    """Build a config's ``roi_head`` for classes, with the background, and give it synthetic weights."""
    head = MODELS.build(
        {**cfg, 'num_classes': classes - 1, 'num_priors': priors.shape[1], 'class_agnostic': agnostic, 'priors': None}
    )
    load_synthetic_weights(head, priors, 'roi_head.')
    return head.eval()


@torch.no_grad()
def compute_heads(cfg: Mapping, expected: Mapping[str, np.ndarray]) -> Arrays:
    """Return crops, resampled masks and the cases of the mask branch; crops that reach over the border are NaN.

    Args:
        cfg: a config's ``roi_head``.
        expected: the arrays of a ``shapemask_heads.npz`` file, with the inputs among them.
    """
    arrays: Arrays = {}
    x = [torch.from_numpy(expected[f'in.{level}'].astype(np.float32)) for level in LEVELS]
    boxes, outer = torch.from_numpy(expected['in.boxes']), torch.from_numpy(expected['in.outer_boxes'])
    if 'crop.boxes' in expected:
        head = build_mask_head(cfg, 5, made_priors(5, 4))
        rois = _rois(torch.from_numpy(expected['crop.boxes']))
        crops = head.crop(x, rois).numpy()
        crops[(rois[:, 1:] < 0).any(1) | (rois[:, 3] >= SIZE[1]) | (rois[:, 4] >= SIZE[0])] = np.nan
        levels = head.crop.map_roi_levels(rois).numpy() + 3
        arrays |= {'crop.levels': levels, 'crop.values': crops[:, :4], 'crop.fingerprint': crops}
    if 'resample.masks' in expected:
        masks = torch.from_numpy(expected['resample.masks'].astype(np.float32) / 255)
        arrays['resample.values'] = resample_in_outer_boxes(masks, boxes, outer).numpy()
        arrays['resample.ones'] = resample_in_outer_boxes(torch.ones_like(masks), boxes, outer).numpy()
    for case, (classes, modes, agnostic, chosen) in CASES.items():
        if f'{case}.fine' in expected:
            priors = made_priors(5, modes)[:1] if classes == 1 else made_priors(classes, modes)
            head = build_mask_head(cfg, classes, np.zeros_like(priors) if case == 'noprior5' else priors, agnostic)
            head.train(case == 'train5')
            labels = torch.from_numpy(expected[f'in.{chosen}']) if chosen else torch.zeros(len(boxes), dtype=torch.long)
            features = head.features(x, _rois(outer))
            masks = head.masks_of_features(features, boxes, outer, labels)
            found = masks._asdict() | dict(features=features, embedding=instance_embedding(features, masks.coarse))
            names = {'prior_weights': 'weights', 'prior': 'priors'}
            arrays |= {f'{case}.{names.get(name, name)}': tensor.numpy() for name, tensor in found.items()}
    if 'iso.features' in expected:
        head = build_mask_head(cfg, 5, made_priors(5, 4))
        features, prior = (
            torch.from_numpy(expected[f'iso.{name}'].astype(np.float32)) for name in ('features', 'prior')
        )
        labels = torch.from_numpy(expected['iso.classes'])
        coarse = head.coarse_head(features, prior, labels)
        arrays |= {
            'iso.coarse': coarse.numpy(),
            'iso.embedding': instance_embedding(features, coarse).numpy(),
            'iso.fine': head.fine_head(features, coarse, labels).numpy(),
        }
    for classes, modes in ((5, 4), (91, 20)):
        if f'priors{classes}' in expected:
            priors = made_priors(classes, modes)
            arrays[f'priors{classes}'] = np.round(priors * 255).astype(np.uint8) if classes == 5 else priors
    return arrays


def compute_mask_boxes(cfg: Mapping, expected: Mapping[str, np.ndarray]) -> Arrays:
    """Return outer boxes, jittered boxes, the parser's targets and pasted masks.

    Args:
        cfg: a config's ``bbox_head`` with ``train_cfg``, for the anchors' targets.
        expected: the arrays of a ``shapemask_boxes.npz`` file, with the inputs among them.
    """
    arrays: Arrays = {}
    if 'outer.boxes' in expected:
        boxes = torch.from_numpy(expected['outer.boxes'])
        arrays['outer.values'] = outer_boxes(boxes, SIZE).numpy()
        if 'jitter.noise_xywh' in expected:
            jittered = jitter_boxes(boxes, torch.from_numpy(expected['jitter.noise_xywh']))
            clipped = clip_boxes(jittered, (SIZE[0] - 1, SIZE[1] - 1))
            found = dict(boxes=jittered, clipped=clipped, outer=outer_boxes(clipped, SIZE))
            arrays |= {f'jitter.{name}': tensor.numpy() for name, tensor in found.items()}
    for name in expected:
        if match := re.fullmatch(r'targets\.(\w+)\.image', name):
            arrays |= _targets(cfg, expected, match[1])
    if 'paste.masks' in expected:
        masks = paste(expected['paste.masks'].astype(np.float32), expected['paste.boxes'], (80, 120), 0.5, 'resized')
        arrays |= {'paste.result': masks, 'paste.areas': masks.sum((1, 2))}
    return arrays


def compute_mask_losses(expected: Mapping[str, np.ndarray]) -> Arrays:
    """Return the losses of the three masks and their gradients.

    Args:
        expected: the arrays of a ``shapemask_losses.npz`` file, with the inputs among them.
    """
    arrays: Arrays = {}
    for name in expected:
        if match := re.fullmatch(r'mask\.(\w+)\.valid', name):
            valid = torch.from_numpy(expected[name]).flatten().bool()
            for part, loss, size in (('prior', prior_loss, 32), ('coarse', mask_loss, 32), ('fine', mask_loss, 128)):
                masks = torch.from_numpy(expected[f'mask.{part}'].astype(np.float32)).requires_grad_()
                targets = unpack(expected[f'mask.targets{size}'], size)
                value = loss(masks.flatten(0, 1), torch.from_numpy(targets).flatten(0, 1).float(), valid)
                value.backward()
                arrays[f'mask.{match[1]}.loss.{part}'] = value.detach().numpy()
                arrays[f'mask.{match[1]}.grad.{part}'] = masks.grad.numpy()
    return arrays


def unpack(bits: np.ndarray, width: int) -> np.ndarray:
    """Return masks of 0 and 1 of a width from packed bits."""
    return np.unpackbits(bits, axis=-1, count=width)


def _rois(boxes: Tensor) -> Tensor:
    return torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)


def _targets(cfg: Mapping, expected: Mapping[str, np.ndarray], case: str) -> Arrays:
    """Return what the release's parser makes of an annotated picture.

    Our loader resizes masks with their picture; the parser reads them from the masks of the picture before that.
    """

    def given(name: str) -> np.ndarray:
        return expected[f'targets.{case}.{name}']

    image, size, shown = given('image'), given('size'), ~given('crowd')
    height, width = image.shape[:2]
    scale_xy, offset_xy, pixels = _resized(image, size, expected.get(f'targets.{case}.aug'))
    to_picture, moved = np.tile(scale_xy, 2), np.tile(offset_xy, 2)
    boxes = torch.from_numpy(given('gt_boxes')[shown] * to_picture - moved)
    boxes = clip_boxes(boxes, (size[0] - 1, size[1] - 1))
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
    labels = torch.from_numpy(given('gt_labels')[shown])[inside]
    found = assign(build_box_head(cfg), tuple(size.tolist()), boxes[inside], labels)
    noise = torch.from_numpy(given('noise'))
    masks = unpack(given('masks'), width)[shown][inside.numpy()][: len(noise)]
    objects = InstanceData(
        bboxes=boxes[inside][: len(noise)], labels=labels[: len(noise)] - 1, masks=BitmapMasks(masks, height, width)
    )
    learned = [label - 1 for label in VOC] if case == 'voc' else None
    targets = targets_of_image(objects, noise, tuple(size.tolist()), learned=learned)
    sampled: dict[int, np.ndarray] = {side: np.zeros((len(noise), side, side), bool) for side in (32, 128)}
    for i, (mask, box) in enumerate(zip(masks, targets.outer.numpy(), strict=False)):
        of_image = (box + moved) / to_picture
        for side, target in zip(sampled, sample_in_box(mask, of_image, (height, width), (32, 128)), strict=True):
            sampled[side][i] = target
    found |= {
        'input': pixels,
        'scale_xy': scale_xy,
        'offset_xy': offset_xy,
        'boxes': targets.boxes.numpy(),
        'outer_boxes': targets.outer.numpy(),
        'classes': targets.classes.numpy(),
        'valid': targets.valid.numpy(),
        'targets32': sampled[32],
        'targets128': sampled[128],
    }
    return {f'targets.{case}.{name}': array for name, array in found.items()}


def _resized(image: np.ndarray, size: np.ndarray, aug: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the factors and the offset (x, y) of a picture in the network's input, and the input (3, H, W).

    Args:
        image: RGB, shape (H, W, 3).
        size: height and width of the input.
        aug: None, or the jitter of the scale and the parts of the free offset in x and y.
    """
    jitter, *parts = (1.0, 0.0, 0.0) if aug is None else aug.astype(float)
    factor = (size * jitter / image.shape[:2]).min()
    scaled = np.round(np.array(image.shape[:2]) * factor).astype(int)
    offset = (np.maximum(scaled - size, 0) * parts[::-1]).astype(int)
    normalised = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    for axis in (0, 1):
        positions = np.arange(scaled[axis]) * image.shape[axis] / scaled[axis]
        first = positions.astype(int)
        last = np.minimum(first + 1, image.shape[axis] - 1)
        share = (positions - first).reshape(-1, *[1] * (2 - axis))
        normalised = normalised.take(first, axis) * (1 - share) + normalised.take(last, axis) * share
    part = normalised[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]
    pixels = np.zeros((3, *size), np.float32)
    pixels[:, : part.shape[0], : part.shape[1]] = part.transpose(2, 0, 1)
    return (scaled / image.shape[:2])[::-1].astype(np.float32), offset[::-1].astype(np.float32), pixels
