"""Arrays of ShapeMask's boxes, computed from the inputs in the expected files, under the expected arrays' names.

Labels count from 1 there, as 0 is the background, and from 0 in the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from unittest.mock import Mock

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.baselines.shapemask_box_head import ShapeMaskBoxHead

Arrays = dict[str, np.ndarray]

LEVELS = ('p3', 'p4', 'p5', 'p6', 'p7')
STRIDES = (8, 16, 32, 64, 128)


def build_box_head(cfg: Mapping, channels: int = 91) -> ShapeMaskBoxHead:
    """Build a narrow head of ``channels`` classes, with the background, from a config's ``bbox_head``."""
    return MODELS.build({**cfg, 'num_classes': channels - 1, 'in_channels': 8, 'feat_channels': 8})


def compute_boxes(cfg: Mapping, expected: Mapping[str, np.ndarray]) -> Arrays:
    """Return anchors, coding, assignment and detections.

    Args:
        cfg: a config's ``bbox_head`` with ``train_cfg`` and ``test_cfg``.
        expected: the arrays of a ``shapemask_boxes.npz`` file, or some of them, with the inputs among them.
    """
    head = build_box_head(cfg)
    arrays: Arrays = {}
    for height, width in _cases(r'anchors\.(\d+)x(\d+)', expected):
        levels = _anchors(head, int(height), int(width))
        name = f'anchors.{height}x{width}'
        arrays |= {name: torch.cat(levels).numpy(), f'{name}.per_level': np.array([len(level) for level in levels])}
    if 'coder.anchors' in expected:
        arrays |= _coding(head, expected)
    for (case,) in _cases(r'assign\.(\w+)\.gt_boxes', expected):
        size = (256, 320) if case == 'odd' else (256, 384)
        boxes, labels = (torch.from_numpy(expected[f'assign.{case}.gt_{part}']) for part in ('boxes', 'labels'))
        found = assign(head, size, boxes, labels)
        arrays |= {f'assign.{case}.{name}': array for name, array in found.items()}
    for (case,) in _cases(r'det\.(\w+)\.image_size', expected):
        arrays |= _detections(cfg, expected, f'det.{case}.')
    return arrays


def compute_box_losses(cfg: Mapping, expected: Mapping[str, np.ndarray]) -> Arrays:
    """Return the box head's losses alone, and their gradients by its maps.

    Args:
        cfg: a config's ``bbox_head`` with ``train_cfg`` and ``test_cfg``; the box loss's weight is the release's 50.
        expected: the arrays of a ``shapemask_losses.npz`` file, with the inputs among them.
    """
    arrays: Arrays = {}
    for (case,) in _cases(r'retina\.(\w+)\.cls\.p3', expected):
        prefix = f'retina.{case}.'
        logits, deltas = (_maps(expected, f'{prefix}{kind}.', requires_grad=True) for kind in ('cls', 'reg'))
        head = build_box_head(cfg, logits[0].shape[1] // 9)
        size = tuple(8 * side for side in logits[0].shape[-2:])
        anchors = sum(level.shape[-2] * level.shape[-1] * 9 for level in logits)
        objects, targets = [], []
        for image in range(len(logits[0])):
            boxes, labels = (torch.from_numpy(expected[f'{prefix}gt_{part}{image}']) for part in ('boxes', 'labels'))
            objects.append(InstanceData(bboxes=boxes, labels=labels.long() - 1))
            found = assign(head, size, boxes, labels)
            arrays |= {f'{prefix}{name}{image}': found[name] for name in ('positives', 'labels', 'deltas')}
            given = [torch.from_numpy(expected[f'{prefix}{name}{image}']) for name in ('positives', 'labels', 'deltas')]
            targets.append(_spread(head.num_classes, anchors, *given))
        # Rounding decides which targets are exactly 0 and don't count, so the losses are those of the given targets.
        head.targets_of_image = Mock(side_effect=targets)  # type: ignore[method-assign]
        losses = head.loss_by_feat(logits, deltas, objects, [dict(batch_input_shape=size)] * len(objects))
        (losses['loss_cls'] + losses['loss_bbox']).backward()
        for kind, maps in (('cls', logits), ('reg', deltas)):
            grads = [torch.zeros_like(level) if level.grad is None else level.grad for level in maps]
            arrays |= {f'{prefix}grad.{kind}.{name}': g.numpy() for name, g in zip(LEVELS, grads, strict=True)}
        arrays |= {
            f'{prefix}loss.cls': losses['loss_cls'].detach().numpy(),
            f'{prefix}loss.box': losses['loss_bbox'].detach().numpy() / 50,
            f'{prefix}loss.box_weighted': losses['loss_bbox'].detach().numpy(),
            f'{prefix}num_positives': np.array([len(arrays[f'{prefix}positives{i}']) for i in range(len(objects))]),
        }
    return arrays


def assign(head: ShapeMaskBoxHead, size: tuple[int, int], boxes: Tensor, labels: Tensor) -> Arrays:
    """Return the positive anchors of an image, their labels, from 1, and their deltas.

    Args:
        head: the box head.
        size: height and width of the network's input.
        boxes, labels: the objects, shapes (G, 4) and (G,), labels from 1.
    """
    found, deltas = head.targets_of_image(torch.cat(_anchors(head, *size)), boxes, labels.long() - 1)
    positives = (found < head.num_classes).nonzero().squeeze(1)
    return {
        'positives': positives.numpy(),
        'labels': found[positives].numpy() + 1,
        'deltas': deltas[positives].numpy(),
        'num_positives': np.array(len(positives)),
    }


def _spread(num_classes: int, anchors: int, positives: Tensor, labels: Tensor, deltas: Tensor) -> tuple:
    """Return the targets of all anchors, as the head makes them, of those of the positive ones."""
    all_labels, all_deltas = torch.full((anchors,), num_classes), torch.zeros(anchors, 4)
    all_labels[positives], all_deltas[positives] = labels.long() - 1, deltas
    return all_labels, all_deltas


def _anchors(head: ShapeMaskBoxHead, height: int, width: int) -> list[Tensor]:
    """Return the anchors of each level: those whose centres lie in the input."""
    sizes = [((height + stride // 2 - 1) // stride, (width + stride // 2 - 1) // stride) for stride in STRIDES]
    return head.prior_generator.grid_priors(sizes, device='cpu')


def _coding(head: ShapeMaskBoxHead, expected: Mapping[str, np.ndarray]) -> Arrays:
    anchors, boxes, encoded, deltas = (
        torch.from_numpy(expected[f'coder.{part}']) for part in ('anchors', 'boxes', 'encoded', 'deltas')
    )
    coder = head.bbox_coder
    return {
        'coder.encoded': coder.encode(anchors, boxes).numpy(),
        'coder.decoded': coder.decode(anchors, deltas).numpy(),
        'coder.decoded_clipped': coder.decode(anchors, deltas, (256, 384)).numpy(),
        'coder.round_trip': coder.decode(anchors, encoded).numpy(),
    }


def _detections(cfg: Mapping, expected: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    logits, deltas = (_maps(expected, f'{prefix}{kind}.') for kind in ('cls', 'reg'))
    head = build_box_head(cfg, logits[0].shape[1] // 9)
    height, width = expected[f'{prefix}image_size'].tolist()
    (found,) = head.predict_by_feat(logits, deltas, batch_img_metas=[dict(batch_input_shape=(height, width))])
    anchors = torch.cat(head.prior_generator.grid_priors([level.shape[-2:] for level in logits], device='cpu'))
    raw_scores, raw_deltas = (
        torch.cat([level[0].permute(1, 2, 0).reshape(-1, level.shape[1] // 9) for level in maps])
        for maps in (logits, deltas)
    )
    raw_boxes = head.bbox_coder.decode(anchors, raw_deltas, (height, width)).numpy()
    found = {
        'raw_boxes': raw_boxes,
        'raw_boxes.head': raw_boxes[:512],
        'raw_scores': raw_scores[:, 1:].sigmoid().numpy(),
        'count': np.array(len(found)),
        'boxes': found.bboxes.numpy(),
        'scores': found.scores.numpy(),
        'labels': found.labels.numpy() + 1,
    }
    return {prefix + name: array for name, array in found.items()}


def _maps(expected: Mapping[str, np.ndarray], prefix: str, requires_grad: bool = False) -> list[Tensor]:
    return [torch.from_numpy(expected[prefix + name]).requires_grad_(requires_grad) for name in LEVELS]


def _cases(pattern: str, names: Sequence[str] | Mapping[str, np.ndarray]) -> list[tuple[str, ...]]:
    """Return the groups of a pattern in each name that matches it."""
    return [match.groups() for name in names if (match := re.fullmatch(pattern, name))]
