"""TensorMask: the arrays that a model computes, under the names of the expected ones."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from helpers.release_layout import to_release
from mmdet.structures import SampleList
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmengine.utils import ProgressBar
from torch import Tensor

from centermask import TensorMask
from centermask.baselines.swap_align2nat import swap_align2nat
from centermask.baselines.windows import locate
from centermask.mask_targets import rasterise_in_rois
from parity.centermask import batch, check_classes, reference_threads
from parity.comparison import Arrays, Computed, Kind
from parity.inputs import AnnotatedImage, Inputs, read_inputs
from parity.model import build_reference_model

KINDS: tuple[Kind, ...] = (
    (r'(multi\.)?windows\.p\d', 'std', 1e-6),
    (r'(multi\.)?(backbone|fpn)\..*', 'std', 5e-5),
    (r'(multi\.)?(cls|box|mask_fuse|mask_aligned|mask)\..*', 'std', 3e-4),
    (r'(multi\.)?assign\.deltas', 'number', 1e-5),
    (r'(multi\.)?(assign|windows)\..*|.*\.(windows|mask_sizes|labels)|(.*\.)?train\.positives', 'number', 0),
    (r'.*\.(scores|mask_sums)', 'ratio', 1e-4),
    (r'.*\.boxes', 'pixels', 0.02),
    (r'.*\.(mask_areas|mask_union)', 'pixels', 2),
    (r'(.*\.)?loss\..*', 'ratio', 1e-4),
    (r'(.*\.)?grad\..*', 'ratio', 5e-3),
)
SWAP_GIVEN = r'l\d+_v\d+_\d+x\d+\.(input|grad_output)'  # ratio of the strides, cells and size of the map
SWAP_KINDS: tuple[Kind, ...] = ((r'l\d+_.*', 'absolute', 1e-5),)
DETECTIONS = ('calm.raw.', 'calm.det.', 'calm.multi.raw.', 'calm.multi.det.', 'calm.big.det.')
STEPS = ('', 'multi.', 'pair.', 'calm.', 'calm.multi.', 'calm.pair.')
LOSSES = {'cls': 'loss_cls', 'box': 'loss_bbox', 'mask': 'loss_mask'}
BIG = (384, 512)  # an output size for an image of 256×341


def compute(cfg: Config, expected: Arrays, inputs: Path) -> Computed:
    """Build the config's model and compute its arrays.

    Args:
        cfg: the config.
        expected: results alone, or the cases of the swap with their inputs, which need no model.
        inputs: an ``inputs.npz``.

    Raises:
        InputError: the model or the inputs can't be used.
    """
    if any(re.fullmatch(SWAP_GIVEN, name) for name in expected):
        return Computed(_swaps(expected), SWAP_KINDS, given=SWAP_GIVEN)
    model, _ = build_reference_model(cfg)
    images = read_inputs(inputs)
    check_classes(model, images, cfg)
    with reference_threads():
        return Computed(_compute_arrays(model, images), KINDS, DETECTIONS, STEPS)


def _swaps(given: Arrays) -> Arrays:
    """Return the values and gradients of the swap alone."""
    arrays: Arrays = {}
    for case in sorted({name.rpartition('.')[0] for name in given}):
        aligned = torch.from_numpy(given[f'{case}.input']).requires_grad_()
        natural = swap_align2nat(aligned, int(case[1 : case.index('_')]))
        (gradient,) = torch.autograd.grad(natural, aligned, torch.from_numpy(given[f'{case}.grad_output']))
        arrays |= {f'{case}.output': natural.detach().numpy(), f'{case}.grad_input': gradient.numpy()}
    return arrays


def _compute_arrays(model: TensorMask, inputs: Inputs) -> Arrays:
    """Run a model in inference and training; its output convs are made smaller for the arrays under ``calm``."""
    progress = ProgressBar(11, file=sys.stderr)
    arrays: Arrays = {}
    images = {'': [inputs.single], 'multi.': [inputs.multi], 'pair.': [inputs.single, inputs.multi]}

    def add(prefix: str, part: Callable[[TensorMask, list[AnnotatedImage]], Arrays], of: str) -> None:
        arrays.update({prefix + of + name: array for name, array in part(model, images[of]).items()})
        progress.update()

    add('', _maps_and_stages, '')
    add('', _maps, 'multi.')
    for of in images:
        add('', _training, of)
    with torch.no_grad():  # scores that don't saturate, and boxes of moderate sizes
        model.bbox_head.conv_cls.weight *= 0.2
        model.bbox_head.conv_cls.bias -= 2
        model.bbox_head.conv_reg.weight *= 0.1
    for of in ('', 'multi.'):
        add('calm.', _detections, of)
    add('calm.big.', _enlarged_results, '')
    for of in images:
        add('calm.', _training, of)
    print(file=sys.stderr)
    return arrays


def _maps_and_stages(model: TensorMask, images: list[AnnotatedImage]) -> Arrays:
    """Return the stages of the backbone beside what :func:`_maps` returns."""
    with torch.no_grad():
        stages = model.eval().backbone(batch(model, *images)[0])
    return {f'backbone.c{i}': stage.numpy() for i, stage in enumerate(stages, 2)} | _maps(model, images)


def _maps(model: TensorMask, images: list[AnnotatedImage]) -> Arrays:
    """Return the maps of pyramid and heads, the windows, and the objects that they are assigned."""
    model.eval()
    inputs, (sample,) = batch(model, *images)
    maps: dict[str, Tensor] = {}
    with torch.no_grad():
        x = model.extract_feat(inputs)
        finest = model.mask_head.convs(x[0])
        outputs = zip(x, *model.bbox_head(x), strict=True)
        for k, (level, cls_score, bbox_pred) in enumerate(outputs):
            p = f'p{k + 2}'
            fused = model.mask_head.bipyramid(finest, model.mask_head.convs(level), k)
            maps |= {f'fpn.{p}': level, f'cls.{p}': cls_score, f'box.{p}': bbox_pred, f'mask_fuse.{p}': fused}
            for size, predictor in model.mask_head.predictors.items():
                aligned = predictor(fused)
                maps |= {f'mask_aligned.{size}.{p}': aligned, f'mask.{size}.{p}': swap_align2nat(aligned, 2**k)}
    sizes = [level.shape[-2:] for level in x]
    for p, windows in enumerate(model.bbox_head.prior_generator.grid_priors(sizes, device='cpu'), 2):
        maps |= {f'windows.p{p}': windows, f'windows.p{p}.count': torch.tensor(len(windows))}
        maps |= {f'windows.p{p}.first': windows[:4], f'windows.p{p}.last': windows[-4:]}
    return {name: tensor.numpy() for name, tensor in maps.items()} | assignment(model, x, sample.gt_instances)


def assignment(model: TensorMask, x: tuple[Tensor, ...], truth: InstanceData) -> Arrays:
    """Return the positive and contested windows of an image, with their targets.

    Args:
        model: its box head is used alone.
        x: levels of the pyramid; their sizes count.
        truth: the image's objects.
    """
    head = model.bbox_head
    windows, strides = head.windows(x)
    positive = head.assign(windows, strides, truth)
    claimed = torch.bincount(head.assigner.claims(windows, strides, truth.bboxes)[0], minlength=len(windows))
    at = locate([positive.numbers], [level.shape[-2:] for level in x], head.num_base_priors)
    areas = []
    for i, window in zip(positive.objects.tolist(), positive.windows.double().numpy(), strict=True):
        cells = round((window[2] - window[0]) / 4)  # of 4 pixels on every level
        areas.append(rasterise_in_rois([truth.masks.masks[i]], window[None], cells).sum())
    return {
        'assign.inds': positive.numbers.numpy(),
        'assign.levels': at.levels.numpy(),
        'assign.places': torch.stack([at.places.rows, at.places.columns, at.sizes], dim=1).numpy(),
        'assign.matched': positive.objects.numpy(),
        'assign.contested': (claimed > 1).nonzero().squeeze(1).numpy(),
        'assign.deltas': head.bbox_coder.encode(positive.windows, truth.bboxes[positive.objects]).numpy(),
        'assign.mask_areas': np.array(areas),
    }


def _training(model: TensorMask, images: list[AnnotatedImage]) -> Arrays:
    """Return the losses, the L2 norms of the gradients of their sum, and the number of positive windows."""
    model.train()
    model.zero_grad()
    inputs, samples = batch(model, *images)
    losses = model.loss(inputs, samples)
    torch.stack(list(losses.values())).sum().backward()
    arrays = {f'loss.{name}': losses[key].detach().double().numpy() for name, key in LOSSES.items()}
    with torch.no_grad():
        windows, strides = model.bbox_head.windows(model.extract_feat(inputs))
    found = [model.bbox_head.assign(windows, strides, sample.gt_instances) for sample in samples]
    arrays['train.positives'] = np.array(sum(map(len, found)))
    gradients = model.state_dict()
    for name, parameter in model.named_parameters():
        gradients[name] = torch.full_like(parameter, torch.nan) if parameter.grad is None else parameter.grad
    for key, gradient in to_release(gradients, 'tensormask').items():
        arrays[f'grad.{key}'] = gradient.double().norm().numpy()
    return arrays


def _detections(model: TensorMask, images: list[AnnotatedImage]) -> Arrays:
    """Return the detections before clipping as ``raw.*`` and the results as ``det.*``."""
    model.eval()
    inputs, samples = batch(model, *images)
    with torch.no_grad():
        x = model.extract_feat(inputs)
        (found,) = model.bbox_head.detect(*model.bbox_head(x))
        sizes, sums = torch.zeros(len(found), dtype=torch.long), torch.zeros(len(found), dtype=torch.double)
        for chosen, logits in model.mask_head.masks_of(x, [found.numbers]):
            sizes[chosen], sums[chosen] = logits.shape[-1], logits.sigmoid().double().sum((1, 2))
    raw = {
        'raw.boxes': found.bboxes,
        'raw.scores': found.scores,
        'raw.labels': found.labels,
        'raw.windows': found.windows,
        'raw.mask_sizes': sizes,
        'raw.mask_sums': sums,
    }
    return {name: tensor.numpy() for name, tensor in raw.items()} | _results(model, inputs, samples)


def _enlarged_results(model: TensorMask, images: list[AnnotatedImage]) -> Arrays:
    """Return the results as if the image had been shrunk from ``BIG`` before."""
    inputs, samples = batch(model, *images)
    height, width = samples[0].img_shape
    samples[0].set_metainfo(dict(ori_shape=BIG, scale_factor=(width / BIG[1], height / BIG[0])))
    return _results(model, inputs, samples)


def _results(model: TensorMask, inputs: Tensor, samples: SampleList) -> Arrays:
    with torch.no_grad():
        (result,) = model.predict(inputs, samples)
    found = result.pred_instances
    tensors = {
        'det.boxes': found.bboxes,
        'det.scores': found.scores,
        'det.labels': found.labels,
        'det.mask_areas': found.masks.sum((1, 2)),
        'det.mask_union': found.masks.any(0).sum(),
    }
    return {name: tensor.numpy() for name, tensor in tensors.items()}
