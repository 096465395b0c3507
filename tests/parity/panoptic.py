"""Panoptic-CenterMask: CenterMask's arrays, those of the semantic head, and panoptic maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.models.seg_heads import PanopticFPNHead
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.panoptic_centermask import PanopticCenterMask
from centermask.panoptic_fusion import PanopticFusion
from centermask.utils.errors import InputError
from parity import centermask
from parity.comparison import Arrays, Computed, Kind
from parity.inputs import AnnotatedImage, Inputs, read_arrays, read_inputs
from parity.model import build_reference_model

KINDS: tuple[Kind, ...] = (
    (r'fusion(_loose)?\..*', 'number', 0),
    (r'(.*\.)?sem\.logits(_full)?', 'std', 3e-4),
    (r'(.*\.)?(sem\.argmax|pan\w*\.map)', 'pixels, part', 1e-3),
    (r'(.*\.)?sem\.hist', 'part of all', 1e-3),
    (r'(.*\.)?sem\.close', 'pixels', 2),
    (r'.*\.pan\w*\.segments', 'segments', 1e-3),
)
STEPS = (*centermask.STEPS, 'pair.')
# Score, share and pixels of stuff.
DEFAULT, STRICT, LOOSE = (0.5, 0.5, 4096), (0.6, 0.25, 2000), (0.3, 0.3, 1000)
BIG = (384, 512)  # an output size for an image of 256×341
CLOSE = 1e-3  # standard deviations of the logits


def compute(cfg: Config, expected: Arrays, inputs: Path) -> Computed:
    """Build the config's model and compute its arrays.

    Args:
        cfg: the config.
        expected: unused, its arrays are results only.
        inputs: an ``inputs.npz``; the file beside it whose name ends in ``_panoptic`` is read too.

    Raises:
        InputError: the model or the inputs can't be used.
    """
    model, recipe = build_reference_model(cfg)
    panoptic = _read(inputs.with_stem(f'{inputs.stem}_panoptic'))
    images = _with_semantic_maps(read_inputs(inputs), panoptic, cfg, model)
    centermask.check_classes(model, images, cfg)
    with centermask.reference_threads():
        arrays = _semantic_arrays(model, images.single, '') | _semantic_arrays(model, images.multi, 'multi.')
        pair = centermask.training(model, recipe, images.single, images.multi)
        arrays |= {f'pair.{name}': array for name, array in pair.items()}
    arrays |= centermask.compute_arrays(model, recipe, images)
    with centermask.reference_threads(), torch.no_grad():
        arrays |= _panoptic_arrays(model.eval(), images.single)
    for name, thresholds in {'fusion.': DEFAULT, 'fusion_loose.': LOOSE}.items():
        arrays |= fuse_by_hand(panoptic, thresholds, name)
    return Computed(
        arrays,
        KINDS + centermask.kinds_of(model),
        centermask.DETECTIONS,
        STEPS,
        centermask.lacking_of(model),
    )


def _read(path: Path) -> Arrays:
    """Read the semantic maps and the input of the fusion."""
    arrays = read_arrays(path, 'inputs of panoptic models')
    names = ('sem_seg', 'sem_seg2', 'fusion.masks', 'fusion.scores', 'fusion.labels', 'fusion.sem_seg')
    for name in names:
        if name not in arrays:
            raise InputError(f'The inputs of panoptic models {path} have no {name}: add it.')
    return arrays


def _with_semantic_maps(inputs: Inputs, panoptic: Arrays, cfg: Config, model: PanopticCenterMask) -> Inputs:
    """Return the inputs with the semantic maps of both images."""
    maps = panoptic['sem_seg'], panoptic['sem_seg2']
    stuff = model.semantic_head.num_stuff_classes
    for image, semantic in zip((inputs.single, inputs.multi), maps, strict=True):
        if semantic.shape != image.image.shape[:2]:
            raise InputError(
                f'A semantic map of the inputs is {semantic.shape}, its image {image.image.shape[:2]}: correct it.'
            )
        if (largest := semantic[semantic < 255].max(initial=0)) > stuff:
            raise InputError(
                f'The semantic maps have class {largest} and the model of {cfg.filename} has {stuff} classes of stuff: '
                'give the config of the model that the numbers are of.'
            )
    return inputs._replace(single=inputs.single._replace(sem_seg=maps[0]), multi=inputs.multi._replace(sem_seg=maps[1]))


@torch.no_grad()
def _semantic_arrays(model: PanopticCenterMask, image: AnnotatedImage, prefix: str) -> Arrays:
    """Return what the semantic head makes of an image, with C2 to C5 and P2 to P7."""
    inputs, samples = centermask.batch(model.eval(), image)
    pyramid = model.neck(model.backbone(inputs))
    metas = [sample.metainfo for sample in samples]
    logits = model.semantic_head(pyramid)['seg_preds']
    complete = _complete_logits(model, pyramid, metas[0])
    classes = model.semantic_head.predict(pyramid, metas, rescale=True)[0].numpy()
    best, second = complete.topk(2, dim=0).values
    arrays = {
        'sem.logits': logits.numpy(),
        'sem.logits_full': complete.numpy(),
        'sem.argmax': classes,
        'sem.hist': np.bincount(classes.ravel(), minlength=len(complete)),
        'sem.close': (best - second < CLOSE * complete.std()).sum().numpy(),
    }
    return {prefix + name: array for name, array in arrays.items()}


def _complete_logits(model: PanopticCenterMask, pyramid: tuple[Tensor, ...], meta: dict) -> Tensor:
    """Return the logits at the output's size, (S + 1, H, W), by MMDetection's head: ours keeps the classes alone."""
    (logits,) = PanopticFPNHead.predict(model.semantic_head, pyramid, [meta], rescale=True)
    return logits


def _panoptic_arrays(model: PanopticCenterMask, image: AnnotatedImage) -> Arrays:
    """Return panoptic maps of an image at its own size and at another."""
    inputs, samples = centermask.batch(model, image)
    pyramid = model.neck(model.backbone(inputs))
    arrays = {}
    (sample,) = model.predict(inputs, samples)
    for name, thresholds in {'pan.': DEFAULT, 'pan_strict.': STRICT}.items():
        arrays |= _fuse(model.panoptic_fusion, sample.pred_instances, sample.pred_sem_seg.sem_seg[0], thresholds, name)
    (height, width), size = BIG, image.image.shape[:2]
    sample.set_metainfo(dict(ori_shape=BIG, scale_factor=(size[1] / width, size[0] / height)))
    (sample,) = model.predict(inputs, [sample])
    instances, classes = sample.pred_instances, sample.pred_sem_seg.sem_seg[0]
    arrays |= _fuse(model.panoptic_fusion, instances, classes, DEFAULT, 'big.pan.')
    arrays |= {
        'big.sem.argmax': classes.numpy(),
        'big.sem.logits_full': _complete_logits(model, pyramid, sample.metainfo).numpy(),
        'big.mask_areas': instances.masks.sum((1, 2)).numpy(),
        'big.boxes': instances.bboxes.numpy(),
    }
    return {f'bias3.{name}': array for name, array in arrays.items()}


def fuse_by_hand(panoptic: Arrays, thresholds: tuple[float, float, int], prefix: str) -> Arrays:
    """Return the fusion of the hand-made input, which belongs to no model."""
    classes = torch.from_numpy(panoptic['fusion.sem_seg']).long()
    masks = np.unpackbits(panoptic['fusion.masks'], axis=1, count=classes.numel()).reshape(-1, *classes.shape)
    instances = InstanceData(
        scores=torch.from_numpy(panoptic['fusion.scores']),
        labels=torch.from_numpy(panoptic['fusion.labels']),
        masks=torch.from_numpy(masks.astype(bool)),
    )
    return _fuse(PanopticFusion(), instances, classes, thresholds, prefix)


def _fuse(
    fusion: PanopticFusion, instances: InstanceData, classes: Tensor, thresholds: tuple[float, float, int], prefix: str
) -> Arrays:
    """Return the map of numbers from 1 on, the segments and their scores as the release has them.

    A segment is its number, whether it is a thing, its class, its pixels and the index of its instance (stuff: -1).
    """
    fusion.score_thr, fusion.mask_overlap, fusion.stuff_area_limit = thresholds
    (fused,) = fusion.predict([instances], [classes])
    panoptic, things = fused.sem_seg[0].numpy(), fusion.num_things_classes
    values, pixels = np.unique(panoptic, return_counts=True)
    numbers = np.zeros_like(panoptic)
    segments, scores = [], []
    # Things by their ids, then stuff by its class, as 0 is the id of all stuff; void stays 0.
    by_number = sorted(zip(values // INSTANCE_OFFSET, values % INSTANCE_OFFSET, pixels, strict=True))
    by_number = [row for row in by_number if row[0]] + [row for row in by_number if not row[0]]
    for id_, label, count in by_number:
        if label == fusion.num_classes:
            continue
        numbers[panoptic == label + INSTANCE_OFFSET * id_] = len(segments) + 1
        index = instances.segment_ids.tolist().index(id_) if id_ else -1
        category = label if id_ else label - things + 1
        segments.append([len(segments) + 1, id_ > 0, category, count, index])
        scores.append(instances.scores[index].item() if id_ else 0.0)
    arrays = {
        'map': numbers,
        'segments': np.array(segments, np.int64).reshape(-1, 5),
        'scores': np.array(scores, np.float32),
    }
    return {prefix + name: array for name, array in arrays.items()}
