"""Arrays that a model computes from the inputs of a comparison, under the names of the expected arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import PolygonMasks
from mmengine.structures import InstanceData
from mmengine.utils import ProgressBar
from torch import Tensor, nn

from centermask.checkpoints.layouts import to_release
from centermask.detector import CenterMask
from parity.inputs import AnnotatedImage, Inputs

LOSSES = {
    'cls': 'loss_cls',
    'box': 'loss_bbox',
    'ctr': 'loss_centerness',
    'mask': 'loss_mask',
    'maskiou': 'loss_mask_iou',
}

THREADS = 2

Arrays = dict[str, np.ndarray]


def compute(model: CenterMask, recipe: str, inputs: Inputs) -> Arrays:
    """Run a model in inference and training and return its arrays.

    Two threads are used, as in the references, because the number of threads decides how sums are split and rounded.
    Names are those of the expected arrays. Maps are complete where the expected arrays are fingerprints. Gradients of
    all parameters are listed under the released keys; that of a frozen parameter is NaN.

    Args:
        model: a model on the CPU. Its box output's biases are set to 3, for the arrays under ``bias3``.
        recipe: ``'star'`` or ``'paper'``.
        inputs: the inputs of the comparison.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return _compute(model, recipe, inputs)
    finally:
        torch.set_num_threads(threads)


def _compute(model: CenterMask, recipe: str, inputs: Inputs) -> Arrays:
    progress = ProgressBar(5, file=sys.stderr)
    arrays: Arrays = {}

    def add(prefix: str, found: Mapping[str, np.ndarray]) -> None:
        arrays.update({prefix + name: array for name, array in found.items()})

    model.eval()
    images, samples = _batch(model, inputs.single)
    with torch.no_grad():
        stages = model.backbone(images)
        pyramid = model.neck(stages)
        add('', _maps(model, stages, pyramid))
        add('', _masks(model, pyramid, samples, inputs))
        add('', _detections(model, pyramid, samples, recipe))
    progress.update()
    for prefix, image in (('', inputs.single), ('multi.', inputs.multi)):
        add(prefix, _training(model, image, recipe))
        progress.update()
    nn.init.constant_(model.bbox_head.conv_reg.bias, 3)
    model.eval()
    with torch.no_grad():
        add('bias3.', _detections(model, pyramid, samples, recipe))
    progress.update()
    add('bias3.', _training(model, inputs.multi, recipe))
    progress.update()
    print(file=sys.stderr)
    return arrays


def _batch(model: CenterMask, annotated: AnnotatedImage) -> tuple[Tensor, list[DetDataSample]]:
    """Return a batch of one annotated image, normalised and padded."""
    size = annotated.image.shape[:2]
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(annotated.boxes),
        labels=torch.from_numpy(annotated.labels),
        masks=PolygonMasks(annotated.polygons, *size),
    )
    image = torch.from_numpy(annotated.image).permute(2, 0, 1)
    data = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]), model.training)
    return data['inputs'], data['data_samples']


@contextmanager
def _outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the outputs of a module."""
    collected: list[Tensor] = []
    hook = module.register_forward_hook(lambda *call: collected.append(call[2]))
    try:
        yield collected
    finally:
        hook.remove()


def _maps(model: CenterMask, stages: Sequence[Tensor], pyramid: Sequence[Tensor]) -> Arrays:
    """Return the stages, the levels of the pyramid, and the box head's logits and distances in pixels."""
    head = model.bbox_head
    maps = {f'backbone.c{i}': stage for i, stage in enumerate(stages, 3)}
    maps |= {f'fpn.p{i}': level for i, level in enumerate(pyramid, 3)}
    for i, (scores, distances, centerness, stride) in enumerate(zip(*head(pyramid), head.strides, strict=True), 3):
        maps[f'fcos.cls.p{i}'] = scores
        maps[f'fcos.box.p{i}'] = distances * (stride if head.norm_on_bbox else 1)
        maps[f'fcos.ctr.p{i}'] = centerness
    return {name: map.numpy() for name, map in maps.items()}


def _masks(model: CenterMask, pyramid: Sequence[Tensor], samples: list[DetDataSample], inputs: Inputs) -> Arrays:
    """Return RoI features, mask logits and predicted IoUs of the boxes in the inputs."""
    head = model.roi_head
    rois, labels = [torch.from_numpy(inputs.rois)], [torch.from_numpy(inputs.roi_labels)]
    with _outputs(head.mask_roi_extractor) as features:
        masks = head(pyramid, rois, labels, [sample.metainfo for sample in samples])
    arrays = {'roi.features': features[0].numpy(), 'mask.logits': masks.logits.numpy()}
    if masks.ious is not None:
        arrays['mask.iou'] = masks.ious.numpy()
    return arrays


def _detections(model: CenterMask, pyramid: Sequence[Tensor], samples: list[DetDataSample], recipe: str) -> Arrays:
    """Return the detections as ``det.*`` and, for star, those before boxes are clipped and dropped as ``raw.*``."""

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
    if recipe == 'star':
        tensors |= {**result('raw', found), 'raw.boxes': boxes}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _training(model: CenterMask, annotated: AnnotatedImage, recipe: str) -> Arrays:
    """Return the losses, the L2 norms of the gradients of their sum, and the number of RoIs in the mask losses."""
    model.train()
    model.zero_grad()
    with _outputs(model.roi_head.mask_roi_extractor) as features:
        losses = model.loss(*_batch(model, annotated))
    torch.stack(list(losses.values())).sum().backward()
    arrays = {f'loss.{name}': losses[key].detach().double().numpy() for name, key in LOSSES.items() if key in losses}
    arrays['train.positives'] = np.array(sum(map(len, features)))
    gradients = model.state_dict()
    for name, parameter in model.named_parameters():
        gradients[name] = torch.full_like(parameter, torch.nan) if parameter.grad is None else parameter.grad
    for key, gradient in to_release(gradients, recipe).items():
        arrays[f'grad.{key}'] = gradient.double().norm().numpy()
    return arrays
