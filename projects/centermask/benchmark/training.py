"""A training step and the data loader, timed on made pictures with outlines of COCO's sizes."""

from __future__ import annotations

import copy
import functools
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures import SampleList
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.benchmark.calibrated_boxes import COCO_SIZE, COCO_SPREAD
from centermask.benchmark.pictures import MADE_SIZE, make_picture
from centermask.utils.errors import InputError

OBJECTS = 7  # of a picture, as COCO has on average
CORNERS = 24
LOADED = 32  # images of which the loader's rate is measured
# RoIs that overlap an object, for each object of an image, the object's own box among them: 56 an image. Mask R-CNN
# takes up to 128 of its 1000 proposals, CenterMask up to 107 of its 100 detections and the objects.
POSITIVES = 8
# How far each side of such a box is moved, at most, in shares of the object's: an IoU of at least 0.6.
SHIFT = 0.1
# Steps that aren't to change much: what is found decides what a step costs.
LEARNING_RATE = 1e-7


def write_data(folder: Path, count: int) -> None:
    """Write ``images/*.jpg`` and ``annotations.json`` with COCO's classes: ellipses as polygons of 24 corners."""
    height, width = MADE_SIZE
    rng = np.random.default_rng(0)
    angles = np.arange(CORNERS) * 2 * np.pi / CORNERS
    images: list[dict] = []
    annotations: list[dict] = []
    (folder / 'images').mkdir()
    for i in range(count):
        name = f'{i}.jpg'
        cv2.imwrite(str(folder / 'images' / name), make_picture(i))
        images.append(dict(id=i + 1, file_name=name, width=width, height=height))
        sides = np.exp(np.log(COCO_SIZE * np.sqrt(width * height)) + COCO_SPREAD * rng.normal(size=OBJECTS))
        for side in np.clip(sides, 8, 400):
            x, y = rng.uniform(side / 2, width - side / 2), rng.uniform(side / 2, max(height - side / 2, side / 2 + 1))
            outline = np.stack([x + side / 2 * np.cos(angles), y + side / 2 * np.sin(angles)], 1)
            outline = outline.clip(0, [width, height])
            (left, top), (right, bottom) = outline.min(0), outline.max(0)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i + 1,
                    category_id=int(rng.integers(80)) + 1,
                    iscrowd=0,
                    bbox=[float(v) for v in (left, top, right - left, bottom - top)],
                    area=float(cv2.contourArea(outline.astype(np.float32))),
                    segmentation=[[float(v) for v in outline.flatten()]],
                )
            )
    classes = CocoDataset.METAINFO['classes']
    categories = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
    coco = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations.json').write_text(json.dumps(coco))


def training_set(config: Config, folder: Path, size: tuple[int, int] | None) -> Any:
    """Return a config's training data set on the data in ``folder``, at another size if one is given.

    Raises:
        InputError: the config trains on something else than COCO's format.
    """
    if 'CocoDataset' not in (config.get('train_dataloader') or {}).get('dataset', {}).get('type', ''):
        raise InputError('--train: the config trains on no data set in COCO format.')
    settings = copy.deepcopy(config.train_dataloader.dataset)
    settings.update(data_root='', ann_file=str(folder / 'annotations.json'))
    settings.update(data_prefix=dict(img=str(folder / 'images')))
    if size:
        scale = (size[1], size[0])
        for transform in settings.pipeline:
            for key in {'scale', 'scales'} & transform.keys():
                # One scale, or a list: those to choose from, or the two ends of a range.
                transform[key] = [scale, scale] if isinstance(transform[key], list) else scale
    with DefaultScope.overwrite_default_scope('mmdet'), redirect_stdout(io.StringIO()):  # pycocotools prints
        return DATASETS.build(settings)


def near(objects: Tensor) -> Tensor:
    """Return boxes around the objects' (N, 4): ``POSITIVES - 1`` of each, the same each time."""
    random = torch.Generator().manual_seed(0)
    moves = torch.rand(POSITIVES - 1, len(objects), 4, generator=random) * 2 - 1
    sides = (objects[:, 2:] - objects[:, :2]).repeat(1, 2)
    return (objects + SHIFT * sides * moves.to(objects)).flatten(0, 1)


def _finding(loss: Callable) -> Callable:
    """The loss of an RoI head, given boxes that lie around the objects in place of as many of those that were found.

    Those that random weights find overlap hardly an object, so hardly an RoI would get to the mask branch.
    """

    @functools.wraps(loss)
    def finding(x: Any, found: Sequence[InstanceData], samples: SampleList) -> dict[str, Tensor]:
        boxes = []
        for one, sample in zip(found, samples, strict=True):
            around = near(sample.gt_instances.bboxes)
            boxes.append(torch.cat([around, one.bboxes[: max(len(one) - len(around), 0)]]))
        return loss(x, [InstanceData(bboxes=each) for each in boxes], samples)

    return finding


class Step:
    """Steps of training on one batch, in which the RoIs of a two-stage model and a CenterMask meet objects.

    Args:
        model: a copy of it is trained.
        batch: as the data loader gives it.

    Attributes:
        positives: RoIs an image that reached the mask head in the last step; None if the model has no such head.
    """

    def __init__(self, model: Any, batch: Mapping) -> None:
        self.model, self.batch = copy.deepcopy(model).train(), batch
        self.positives: float | None = None
        head = getattr(self.model, 'roi_head', None)
        if head is not None:
            head.loss = _finding(head.loss)
            head.mask_head.register_forward_pre_hook(self._count)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = OptimWrapper(torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the batch's pictures, without what they are padded by to the same size."""
        heights, widths = zip(*(image.shape[-2:] for image in self.batch['inputs']), strict=True)
        return max(heights), max(widths)

    def _count(self, head: Any, inputs: tuple[Tensor, ...]) -> None:
        self.positives = len(inputs[0]) / len(self.batch['inputs'])

    def run(self, number: int) -> dict[str, Tensor]:
        """Train one step and return the losses."""
        return self.model.train_step(copy.deepcopy(self.batch), self.optimizer)


def prepare_training(config: Config, model: Any, batch_size: int, size: tuple[int, int] | None) -> Step:
    """Return a model's step of training on made data.

    Args:
        config: that the model is of.
        model: calibrated.
        batch_size: images of a step.
        size: of training pictures' shorter and longer side, instead of the config's own.

    Raises:
        InputError: as :func:`training_set` says.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), batch_size)
        data = training_set(config, Path(folder), size)
        return Step(model, pseudo_collate([data[i] for i in range(batch_size)]))


def loader_rate(config: Config) -> float:
    """Return how many images a second one core reads and transforms, at the config's own size.

    Another size would say little of training: most of the time goes into resizing. Ask before a CenterMask is tested in
    the process: a worker's has none of the memory that it keeps, with which loading is up to twice as fast.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), LOADED)
        data = training_set(config, Path(folder), None)
        threads = torch.get_num_threads(), cv2.getNumThreads()
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        try:
            seconds = []
            for _ in range(3):
                start = time.perf_counter()
                for i in range(LOADED):
                    data[i]
                seconds.append(time.perf_counter() - start)
            return LOADED / statistics.median(seconds)
        finally:
            torch.set_num_threads(threads[0])
            cv2.setNumThreads(threads[1])
