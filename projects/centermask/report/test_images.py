"""The images of a test, by their numbers in the annotation file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope

from centermask.datasets.coco import innermost
from centermask.datasets.coco_annotations import CocoAnnotations
from centermask.datasets.coco_evaluation import quiet
from centermask.utils.errors import InputError

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'img_shape')),
]


class TestImages:
    """A test's data set.

    Args:
        cfg: The test's config.

    Attributes:
        dataset: With ``PIPELINE``.
        classes: Names, by label.
        annotations: The file's objects.
        numbers: Of the images, in the order of the data set.

    Raises:
        InputError: The config has no test data, or they can't be read.
    """

    __test__ = False  # it is no test

    def __init__(self, cfg: Config) -> None:
        if 'test_dataloader' not in cfg:
            raise InputError(f'The config {cfg.filename} has no test_dataloader: name the work dir of a test.')
        init_default_scope('mmdet')
        self.dataset: BaseDetDataset = DATASETS.build({**innermost(cfg.test_dataloader), 'pipeline': PIPELINE})
        self.classes: tuple[str, ...] = tuple(self.dataset.metainfo['classes'])
        with quiet():
            self.annotations = CocoAnnotations(self.dataset.ann_file)
        numbers = {image: number for number, image in enumerate(self.annotations.imgs)}
        infos = (self.dataset.get_data_info(i) for i in range(len(self.dataset)))
        self.numbers = [numbers[info['img_id']] for info in infos]
        self._places = {number: place for place, number in enumerate(self.numbers)}

    def load(self, number: int) -> tuple[str, np.ndarray, DetDataSample] | None:
        """Return an image's name, its pixels (H, W, 3) in RGB and its ground truth; None if it wasn't tested."""
        if number not in self._places:
            return None
        data = self.dataset[self._places[number]]
        image, sample = data['inputs'].permute(1, 2, 0).numpy()[..., ::-1], data['data_samples']
        return Path(sample.img_path).name, np.ascontiguousarray(image), sample
