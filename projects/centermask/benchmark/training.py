"""A training step and the data loader, on synthetic images."""

from __future__ import annotations

import copy
import functools
import io
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.benchmark.rounds import timed_on
from centermask.datasets.shapes import make_dataset
from centermask.utils.errors import InputError

SIZE, RADII = (480, 640), (12.0, 150.0)  # of COCO's images and objects
LOADED = 32  # images of which the loader's rate is measured
# RoIs that overlap an object, for each object of an image: Mask R-CNN and CenterMask are given the same.
POSITIVES = 8
SHIFT = 0.1  # largest move of such a box's sides, in sides of the object: an IoU of at least 0.6
LEARNING_RATE = 1e-7  # the steps shall not change what is found


def training_set(config: Config, folder: Path, images: int, size: tuple[int, int] | None = None) -> Any:
    """Return a config's training data set on ``images`` synthetic images, written into ``folder``.

    Raises:
        InputError: the config trains on another format than COCO's.
    """
    if 'CocoDataset' not in (config.get('train_dataloader') or {}).get('dataset', {}).get('type', ''):
        raise InputError('--train: the config trains on no data set in COCO format.')
    make_dataset(folder / 'data', images, 0, SIZE, RADII, CocoDataset.METAINFO['classes'])
    settings = copy.deepcopy(config.train_dataloader.dataset)
    settings.update(data_root=str(folder / 'data'), ann_file='annotations.json', data_prefix=dict(img='images'))
    for transform in settings.pipeline if size else ():
        for key in {'scale', 'scales'} & transform.keys():
            # One scale, or a list: those to choose from, or the two ends of a range.
            scale = size[::-1] if size else None
            transform[key] = [scale, scale] if isinstance(transform[key], list) else scale
    with DefaultScope.overwrite_default_scope('mmdet'), redirect_stdout(io.StringIO()):  # pycocotools prints
        return DATASETS.build(settings)


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
        batch_size: images of a step.
        size: shorter and longer side of the resized images, instead of the config's own.

    Attributes:
        positives: RoIs an image that reached the mask head in the last step; None if the model has no such head.

    Raises:
        InputError: see :func:`training_set`.
    """

    def __init__(self, config: Config, model: Any, batch_size: int, size: tuple[int, int] | None = None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            data = training_set(config, Path(folder), 2 * batch_size, size)  # some images are empty and left out
            self.batch = pseudo_collate([data[i] for i in range(batch_size)])
        self.model = model.train()
        self.positives: float | None = None
        if getattr(model, 'roi_head', None) is not None:
            model.roi_head.loss = _with_positives(model.roi_head.loss)
            model.roi_head.mask_head.register_forward_pre_hook(self._count)
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = OptimWrapper(torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9))

    def _count(self, head: Any, inputs: tuple[Tensor, ...]) -> None:
        self.positives = len(inputs[0]) / len(self.batch['inputs'])

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the batch's images, without padding."""
        heights, widths = zip(*(image.shape[-2:] for image in self.batch['inputs']), strict=True)
        return max(heights), max(widths)

    def run(self) -> dict[str, Tensor]:
        """Train one step and return the losses."""
        return self.model.train_step(copy.deepcopy(self.batch), self.optimizer)


def loader_rate(config: Config) -> float:
    """Return the images a second that one core reads and transforms at the config's own size.

    Raises:
        InputError: see :func:`training_set`.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = training_set(config, Path(folder), LOADED)
        threads = torch.get_num_threads(), cv2.getNumThreads()
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        try:
            seconds = [timed_on('cpu')(lambda: [data[i] for i in range(len(data))]) for _ in range(3)]
            return len(data) / statistics.median(seconds)
        finally:
            torch.set_num_threads(threads[0])
            cv2.setNumThreads(threads[1])
