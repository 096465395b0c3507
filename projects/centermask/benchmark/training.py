"""A training step on synthetic images."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.models.roi_heads import StandardRoIHead
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.benchmark.rounds import timed_on
from centermask.datasets.coco import innermost
from centermask.datasets.coco_evaluation import quiet
from centermask.datasets.coco_panoptic import write_png
from centermask.datasets.shapes import make_dataset
from centermask.utils.errors import InputError

SIZE, RADII = (480, 640), (12.0, 150.0)  # of COCO's images and objects
# RoIs that overlap an object, for each object of an image: Mask R-CNN and CenterMask are given the same.
POSITIVES = 8
SHIFT = 0.1  # largest move of such a box's sides, in sides of the object: an IoU of at least 0.6
LEARNING_RATE = 1e-7  # the steps shall not change what is found


def training_batch(config: Config, images: int, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return a batch of synthetic images through a config's training data set.

    Args:
        config: that trains on a data set in COCO format.
        images: in the batch.
        size: shorter and longer side of the resized images, instead of the config's own.

    Raises:
        InputError: the config trains on another format than COCO's.
    """
    settings = copy.deepcopy((config.get('train_dataloader') or {}).get('dataset', {}))
    data = innermost(settings)
    kind = data.get('type', '')
    if 'CocoDataset' not in kind and kind != 'CenterMaskPanopticDataset':
        raise InputError('--train: the config trains on no data set in COCO format.')
    for transform in data['pipeline'] if size else ():
        for key in {'scale', 'scales'} & transform.keys():
            # One scale, or a list: those to choose from, or the two ends of a range.
            scale = size[::-1] if size else None
            transform[key] = [scale, scale] if isinstance(transform[key], list) else scale
    with tempfile.TemporaryDirectory() as folder:
        classes = data.get('metainfo', {}).get('classes', CocoDataset.METAINFO['classes'])
        make_dataset(Path(folder) / 'data', 2 * images, 0, SIZE, RADII, classes)  # some are empty and left out
        data.update(data_root=f'{folder}/data', ann_file='annotations.json', data_prefix=dict(img='images'))
        if kind == 'CenterMaskPanopticDataset':
            data['data_prefix']['seg'] = 'semantic'
            for image in Path(folder, 'data/images').iterdir():
                write_png(Path(folder, f'data/semantic/{image.stem}.png'), np.zeros(SIZE, np.uint8))
        with DefaultScope.overwrite_default_scope('mmdet'), quiet():
            dataset = DATASETS.build(settings)
            return pseudo_collate([dataset[i] for i in range(images)])


def near(objects: Tensor) -> Tensor:
    """Return ``POSITIVES - 1`` boxes around each of the objects' boxes (N, 4), the same at each call."""
    random = torch.Generator().manual_seed(0)
    moves = torch.rand(POSITIVES - 1, len(objects), 4, generator=random) * 2 - 1
    sides = (objects[:, 2:] - objects[:, :2]).repeat(1, 2)
    return (objects + SHIFT * sides * moves.to(objects)).flatten(0, 1)


def _with_positives(loss: Callable) -> Callable:
    """Wrap the loss of an RoI head: boxes around the objects replace as many of those that random weights found."""

    @functools.wraps(loss)
    def wrapped(x: Any, detections: Sequence[InstanceData], samples: Sequence[Any]) -> dict[str, Tensor]:
        positives = [near(sample.gt_instances.bboxes) for sample in samples]
        boxes = [
            torch.cat([around, detected.bboxes[: max(len(detected) - len(around), 0)]])
            for around, detected in zip(positives, detections, strict=True)
        ]
        return loss(x, [InstanceData(bboxes=each) for each in boxes], samples)

    return wrapped


class TrainStep:
    """Training steps of a model on one batch of synthetic images.

    Args:
        config: of the model.
        model: is trained.
        batch_size, size: as in :func:`training_batch`.

    Attributes:
        positives: RoIs an image that reached the mask head in the last step; None if the model samples none.

    Raises:
        InputError: see :func:`training_batch`.
    """

    def __init__(self, config: Config, model: Any, batch_size: int, size: tuple[int, int] | None = None) -> None:
        self.batch = training_batch(config, batch_size, size)
        self.model = model.train()
        self.positives: float | None = None
        if isinstance(getattr(model, 'roi_head', None), StandardRoIHead):  # ShapeMask's draws a fixed number of objects
            model.roi_head.loss = _with_positives(model.roi_head.loss)
            model.roi_head.mask_head.register_forward_pre_hook(self._count)
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = OptimWrapper(torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9))

    def _count(self, head: Any, inputs: tuple[Tensor, ...]) -> None:
        self.positives = len(inputs[0]) / len(self.batch['inputs'])

    def run(self) -> dict[str, Tensor]:
        """Train one step and return the losses."""
        return self.model.train_step(copy.deepcopy(self.batch), self.optimizer)

    def seconds(self, number: int) -> float:
        """Return the time of a round's step."""
        return timed_on(str(next(self.model.parameters()).device))(self.run)

    def facts(self) -> dict[str, Any]:
        """Return the largest height and width in the batch, without padding, and the positive RoIs."""
        heights, widths = zip(*(image.shape[-2:] for image in self.batch['inputs']), strict=True)
        return {'input': [max(heights), max(widths)], 'positive RoIs': self.positives}
