"""CenterMask of both releases: the arrays that a model computes, under the names of the expected ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from helpers.release_layout import to_release
from mmdet.structures import DetDataSample
from mmdet.structures.mask import PolygonMasks
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmengine.utils import ProgressBar
from torch import Tensor, nn

from centermask.detector import CenterMask
from centermask.utils.errors import InputError
from centermask.vovnet import VARIANTS, OSAModule
from parity.comparison import Arrays, Computed, Kind
from parity.inputs import AnnotatedImage, Inputs, read_inputs
from parity.model import build_reference_model

LOSSES = {
    'cls': 'loss_cls',
    'box': 'loss_bbox',
    'ctr': 'loss_centerness',
    'mask': 'loss_mask',
    'maskiou': 'loss_mask_iou',
    'sem_seg': 'loss_seg',
}

THREADS = 2

GRADIENTS, GRADIENTS_OF_99 = 5e-3, 1e-2
# Units relative to the array's scale hold on any CPU: with the instructions of SSE4.1 or of AVX2 alone, mask logits
# near 0 deviate by 8e-5 of themselves, and no logit by more than 3e-6 of the largest.
KINDS: tuple[Kind, ...] = (
    (r'backbone\..*|fpn\..*', 'std', 5e-5),
    (r'fcos\..*|roi\.features|(bias3\.)?det\.mask_probs', 'std', 3e-4),
    (r'mask\.(logits|iou)|.*\.mask_scores', 'largest', 5e-5),
    (r'.*\.scores', 'ratio', 1e-4),
    (r'.*\.boxes', 'pixels', 0.01),
    (r'.*\.mask_areas', 'pixels', 2),
    (r'.*\.labels|.*train\.positives', 'number', 0),
    (r'(.*\.)?loss\..*', 'ratio', 1e-4),
)
DETECTIONS = ('det.', 'raw.', 'bias3.det.', 'bias3.raw.')
STEPS = ('', 'multi.', 'bias3.')
# Arrays that a model without mask scoring lacks.
OF_MASK_SCORING = r'mask\.iou|.*\bloss\.maskiou|.*\.mask_scores'


def compute(cfg: Config, expected: Arrays, inputs: Path) -> Computed:
    """Build the config's model and compute its arrays.

    Args:
        cfg: the config.
        expected: unused, its arrays are results only.
        inputs: an ``inputs.npz``.

    Raises:
        InputError: the model or the inputs can't be used.
    """
    model, recipe = build_reference_model(cfg)
    images = read_inputs(inputs)
    check_classes(model, images, cfg)
    return Computed(compute_arrays(model, recipe, images), kinds_of(model), DETECTIONS, STEPS, lacking_of(model))


def check_classes(model: CenterMask, inputs: Inputs, cfg: Config) -> None:
    """Raise an :class:`InputError` where the inputs have objects of classes that the model lacks."""
    classes = model.bbox_head.num_classes
    largest = max(labels.max() for labels in (inputs.single.labels, inputs.multi.labels, inputs.roi_labels))
    if largest >= classes:
        raise InputError(
            f'The inputs have an object of class {largest} and the model of {cfg.filename} has {classes} classes: give '
            'the config of the model that the numbers are of.'
        )


def kinds_of(model: CenterMask) -> tuple[Kind, ...]:
    """Return how a model's arrays are compared; rounding moves the gradients of the deepest backbone most."""
    modules = sum(isinstance(part, OSAModule) for part in model.backbone.modules())
    deepest = modules == sum(VARIANTS['99'].blocks_per_stage)
    return *KINDS, (r'(.*\.)?grad\..*', 'ratio', GRADIENTS_OF_99 if deepest else GRADIENTS)


def lacking_of(model: CenterMask) -> str:
    """Return the pattern of the arrays that a model lacks."""
    return OF_MASK_SCORING if model.roi_head.mask_iou_head is None else '(?!)'


@contextmanager
def reference_threads() -> Iterator[None]:
    """Use two threads, as the references did: the number of threads decides how sums are split and rounded."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compute_arrays(model: CenterMask, recipe: str, inputs: Inputs) -> Arrays:
    """Run a model in inference and training and return its arrays.

    Gradients of all parameters are listed under the released keys; that of a frozen parameter is NaN.

    Args:
        model: a model on the CPU. Its box output's biases are set to 3, for the arrays under ``bias3``.
        recipe: the layout of its release.
        inputs: the inputs of the comparison.
    """
    progress = ProgressBar(5, file=sys.stderr)
    arrays: Arrays = {}

    def add(prefix: str, found: Mapping[str, np.ndarray]) -> None:
        arrays.update({prefix + name: array for name, array in found.items()})
        progress.update()

    with reference_threads():
        model.eval()
        images, samples = batch(model, inputs.single)
        with torch.no_grad():
            stages = model.backbone(images)
            pyramid = model.neck(stages)
            levels = pyramid[-5:]  # P3 to P7
            add(
                '',
                maps(model, stages, pyramid)
                | _masks(model, levels, samples, inputs)
                | _detections(model, levels, samples, recipe),
            )
        add('', training(model, recipe, inputs.single))
        add('multi.', training(model, recipe, inputs.multi))
        nn.init.constant_(model.bbox_head.conv_reg.bias, 3)
        model.eval()
        with torch.no_grad():
            add('bias3.', _detections(model, levels, samples, recipe))
        add('bias3.', training(model, recipe, inputs.multi))
    print(file=sys.stderr)
    return arrays


def batch(model: CenterMask, *images: AnnotatedImage) -> tuple[Tensor, list[DetDataSample]]:
    """Return a batch of annotated images, normalised and padded."""
    samples = []
    for image in images:
        size = image.image.shape[:2]
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(image.boxes),
            labels=torch.from_numpy(image.labels),
            masks=PolygonMasks(image.polygons, *size),
        )
        if image.sem_seg is not None:
            sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(image.sem_seg)[None])
        samples.append(sample)
    inputs = [torch.from_numpy(image.image).permute(2, 0, 1) for image in images]
    data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), model.training)
    return data['inputs'], data['data_samples']


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the outputs of a module."""
    collected: list[Tensor] = []
    hook = module.register_forward_hook(lambda *call: collected.append(call[2]))
    try:
        yield collected
    finally:
        hook.remove()


def maps(model: CenterMask, stages: Sequence[Tensor], pyramid: Sequence[Tensor]) -> Arrays:
    """Return the stages, to C5, the levels of the pyramid, to P7, and the box head's logits and distances in pixels."""
    head = model.bbox_head
    maps = {f'backbone.c{i}': stage for i, stage in enumerate(stages, 6 - len(stages))}
    maps |= {f'fpn.p{i}': level for i, level in enumerate(pyramid, 8 - len(pyramid))}
    outputs = zip(*head(pyramid[-5:]), head.strides, strict=True)
    for i, (scores, distances, centerness, stride) in enumerate(outputs, 3):
        maps[f'fcos.cls.p{i}'] = scores
        maps[f'fcos.box.p{i}'] = distances * (stride if head.norm_on_bbox else 1)
        maps[f'fcos.ctr.p{i}'] = centerness
    return {name: map.numpy() for name, map in maps.items()}


def _masks(model: CenterMask, pyramid: Sequence[Tensor], samples: list[DetDataSample], inputs: Inputs) -> Arrays:
    """Return RoI features, mask logits and predicted IoUs of the boxes in the inputs."""
    head = model.roi_head
    rois, labels = [torch.from_numpy(inputs.rois)], [torch.from_numpy(inputs.roi_labels)]
    with outputs_of(head.mask_roi_extractor) as features:
        masks = head(pyramid, rois, labels, [sample.metainfo for sample in samples])
    arrays = {'roi.features': features[0].numpy(), 'mask.logits': masks.logits.numpy()}
    if masks.ious is not None:
        arrays['mask.iou'] = masks.ious.numpy()
    return arrays


def _detections(model: CenterMask, pyramid: Sequence[Tensor], samples: list[DetDataSample], recipe: str) -> Arrays:
    """Return the detections as ``det.*`` and, not of paper, those before boxes are clipped and dropped as ``raw.*``."""

    def result(prefix: str, found: InstanceData) -> dict[str, Tensor]:
        mask_scores = found.get('mask_scores', found.scores)  # without mask scoring the detection's score ranks masks
        return {
            f'{prefix}.boxes': found.bboxes,
            f'{prefix}.scores': found.scores,
            f'{prefix}.labels': found.labels,
            f'{prefix}.mask_scores': mask_scores,
        }

    (found,) = model.bbox_head.predict(pyramid, samples, rescale=False)
    boxes = found.bboxes
    masks = model.roi_head(pyramid, [found.bboxes], [found.labels], [sample.metainfo for sample in samples])
    found.probabilities = masks.logits.sigmoid()[:, None]  # dropped together with its detection
    final = model.roi_head.postprocess(found, found.probabilities[:, 0], masks.ious, samples[0].img_shape)
    tensors = result('det', final)
    tensors |= {'det.mask_probs': final.probabilities, 'det.mask_areas': final.masks.sum((1, 2))}
    if recipe != 'paper':
        tensors |= {**result('raw', found), 'raw.boxes': boxes}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def training(model: CenterMask, recipe: str, *images: AnnotatedImage) -> Arrays:
    """Return the losses, the L2 norms of the gradients of their sum, and the number of RoIs in the mask losses."""
    model.train()
    model.zero_grad()
    with outputs_of(model.roi_head.mask_roi_extractor) as features:
        losses = model.loss(*batch(model, *images))
    torch.stack(list(losses.values())).sum().backward()
    arrays = {f'loss.{name}': losses[key].detach().double().numpy() for name, key in LOSSES.items() if key in losses}
    arrays['train.positives'] = np.array(sum(map(len, features)))
    gradients = model.state_dict()
    for name, parameter in model.named_parameters():
        gradients[name] = torch.full_like(parameter, torch.nan) if parameter.grad is None else parameter.grad
    for key, gradient in to_release(gradients, recipe).items():
        arrays[f'grad.{key}'] = gradient.double().norm().numpy()
    return arrays
