"""Arrays that a TensorMask computes from the inputs of a comparison, under the names of the expected arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import numpy as np
import torch
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.mask import PolygonMasks
from mmengine.structures import InstanceData
from mmengine.utils import ProgressBar
from torch import Tensor

from centermask import TensorMask
from centermask.baselines.swap_align2nat import swap_align2nat
from centermask.checkpoints.layouts import to_release
from centermask.mask_targets import rasterise_in_rois
from parity.inputs import AnnotatedImage, Inputs
from parity.outputs import Arrays

BIG = (384, 512)  # height and width of the results under `big`
LOSSES = {'cls': 'loss_cls', 'box': 'loss_bbox', 'mask': 'loss_mask'}

# As in `comparison`: name, unit of the deviation, largest allowed deviation.
KINDS: tuple[tuple[str, str, float], ...] = (
    (r'.*\.windows\.p\d|windows\.p\d', 'std', 0),
    (r'(multi\.)?(backbone|fpn)\..*', 'std', 5e-5),
    (r'(multi\.)?(cls|box|mask_fuse|mask_aligned|mask)\..*', 'std', 3e-4),
    (r'.*assign\.deltas', 'number', 1e-5),
    (r'.*assign\..*|(.*\.)?windows.*|.*\.mask_sizes|.*\.labels|(.*\.)?train\.positives', 'number', 0),
    (r'.*\.(scores|mask_sums)', 'ratio', 1e-4),
    (r'.*\.boxes', 'pixels', 0.02),
    (r'.*\.(mask_areas|mask_union)', 'pixels', 2),
    (r'(.*\.)?loss\..*', 'ratio', 1e-4),
    (r'(.*\.)?grad\..*', 'ratio', 5e-3),
)


def compute(model: TensorMask, inputs: Inputs) -> Arrays:
    """Run a model in inference and training and return its arrays.

    Args:
        model: a model on the CPU, with synthetic weights. Those of its output convs are made smaller, for the arrays
            under ``calm``.
        inputs: the inputs of the comparison.
    """
    progress = ProgressBar(11, file=sys.stderr)
    arrays: Arrays = {}
    images = {'': [inputs.single], 'multi.': [inputs.multi], 'pair.': [inputs.single, inputs.multi]}

    def add(prefix: str, part: Callable[[TensorMask, list[AnnotatedImage]], Mapping[str, np.ndarray]], of: str) -> None:
        arrays.update({prefix + of + name: array for name, array in part(model, images[of]).items()})
        progress.update()

    for of in ('', 'multi.'):
        add('', _maps_and_targets, of)
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


def _maps_and_targets(model: TensorMask, images: list[AnnotatedImage]) -> dict[str, np.ndarray]:
    """Return the maps of all parts, the windows, and the objects that they are assigned."""
    model.eval()
    batch, (sample,) = _batch(model, images)
    maps: dict[str, Tensor] = {}
    with torch.no_grad():
        stages = model.backbone(batch)
        x = model.neck(stages)
        cls_scores, bbox_preds = model.bbox_head(x)
        finest = model.mask_head.convs(x[0])
        maps |= {f'backbone.c{i}': stage for i, stage in enumerate(stages, 2)}
        for k, level in enumerate(x):
            fused = model.mask_head.bipyramid(finest, model.mask_head.convs(level), k)
            maps |= {f'fpn.p{k + 2}': level, f'cls.p{k + 2}': cls_scores[k], f'box.p{k + 2}': bbox_preds[k]}
            maps[f'mask_fuse.p{k + 2}'] = fused
            for size, predictor in model.mask_head.predictors.items():
                maps[f'mask_aligned.{size}.p{k + 2}'] = predictor(fused)
                maps[f'mask.{size}.p{k + 2}'] = swap_align2nat(predictor(fused), 2**k)
    arrays = {name: tensor.numpy() for name, tensor in maps.items()}
    for k, level in enumerate(model.bbox_head.prior_generator.grid_priors([s.shape[-2:] for s in x], device='cpu')):
        windows = level.numpy()
        arrays |= {f'windows.p{k + 2}': windows, f'windows.p{k + 2}.count': np.array(len(windows))}
        arrays |= {f'windows.p{k + 2}.first': windows[:4], f'windows.p{k + 2}.last': windows[-4:]}
    return arrays | _assignment(model, [level.shape[-2:] for level in x], sample.gt_instances)


def _assignment(model: TensorMask, sizes: list[torch.Size], truth: InstanceData) -> dict[str, np.ndarray]:
    head = model.bbox_head
    windows, strides = head.windows([torch.empty(1, 1, *size) for size in sizes])
    positive = head.assign(windows, strides, truth)
    claimed = torch.bincount(head.assigner.claims(windows, strides, truth.bboxes)[0], minlength=len(windows))
    counts = [2 * height * width for height, width in sizes]
    levels = np.searchsorted(np.cumsum(counts), positive.numbers, side='right')
    within = positive.numbers.numpy() - np.array([0, *np.cumsum(counts)])[levels]
    widths = np.array([width for _, width in sizes])[levels]
    sides = ((windows[positive.numbers, 2] - windows[positive.numbers, 0]) / 4).long().tolist()
    areas = [
        rasterise_in_rois([truth.masks.masks[i]], window[None].double().numpy(), side).sum()
        for i, window, side in zip(positive.objects.tolist(), positive.windows, sides, strict=True)
    ]
    return {
        'assign.inds': positive.numbers.numpy(),
        'assign.levels': levels,
        'assign.places': np.stack([within // 2 // widths, within // 2 % widths, within % 2], axis=1),
        'assign.matched': positive.objects.numpy(),
        'assign.contested': (claimed > 1).nonzero().squeeze(1).numpy(),
        'assign.deltas': head.bbox_coder.encode(positive.windows, truth.bboxes[positive.objects]).numpy(),
        'assign.mask_areas': np.array(areas),
    }


def _training(model: TensorMask, images: list[AnnotatedImage]) -> dict[str, np.ndarray]:
    """Return the losses, the L2 norms of the gradients of their sum, and the number of positive windows."""
    model.train()
    model.zero_grad()
    batch, samples = _batch(model, images)
    losses = model.loss(batch, samples)
    torch.stack(list(losses.values())).sum().backward()
    arrays = {f'loss.{name}': losses[key].detach().double().numpy() for name, key in LOSSES.items()}
    with torch.no_grad():
        windows, strides = model.bbox_head.windows(model.extract_feat(batch))
    found = [model.bbox_head.assign(windows, strides, sample.gt_instances) for sample in samples]
    arrays['train.positives'] = np.array(sum(map(len, found)))
    gradients = model.state_dict()
    for name, parameter in model.named_parameters():
        gradients[name] = torch.full_like(parameter, torch.nan) if parameter.grad is None else parameter.grad
    for key, gradient in to_release(gradients, 'tensormask').items():
        arrays[f'grad.{key}'] = gradient.double().norm().numpy()
    return arrays


def _detections(model: TensorMask, images: list[AnnotatedImage]) -> dict[str, np.ndarray]:
    """Return the detections before clipping as ``raw.*`` and the results as ``det.*``."""
    model.eval()
    batch, samples = _batch(model, images)
    with torch.no_grad():
        x = model.extract_feat(batch)
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
    return {name: tensor.numpy() for name, tensor in raw.items()} | _results(model, batch, samples)


def _enlarged_results(model: TensorMask, images: list[AnnotatedImage]) -> dict[str, np.ndarray]:
    """Return the results as if the image had been shrunk from ``BIG`` before."""
    batch, samples = _batch(model, images)
    height, width = samples[0].img_shape
    samples[0].set_metainfo(dict(ori_shape=BIG, scale_factor=(width / BIG[1], height / BIG[0])))
    return _results(model, batch, samples)


def _results(model: TensorMask, batch: Tensor, samples: SampleList) -> dict[str, np.ndarray]:
    with torch.no_grad():
        (result,) = model.predict(batch, samples)
    found = result.pred_instances
    tensors = {
        'det.boxes': found.bboxes,
        'det.scores': found.scores,
        'det.labels': found.labels,
        'det.mask_areas': found.masks.sum((1, 2)),
        'det.mask_union': found.masks.any(0).sum(),
    }
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _batch(model: TensorMask, images: list[AnnotatedImage]) -> tuple[Tensor, SampleList]:
    """Return a batch of annotated images, normalised and padded."""
    samples = []
    for annotated in images:
        size = annotated.image.shape[:2]
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(annotated.boxes),
            labels=torch.from_numpy(annotated.labels),
            masks=PolygonMasks(annotated.polygons, *size),
        )
        samples.append(sample)
    pixels = [torch.from_numpy(annotated.image).permute(2, 0, 1) for annotated in images]
    data = model.data_preprocessor(dict(inputs=pixels, data_samples=samples), model.training)
    return data['inputs'], data['data_samples']
