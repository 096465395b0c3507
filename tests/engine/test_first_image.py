"""Loading the first image before a run leaves no trace."""

import random

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from centermask.engine.first_image import check_pipeline
from centermask.utils.errors import InputError


class _Pack(BaseTransform):
    """Draws, and remembers that it did."""

    seen = 0

    def transform(self, results: dict) -> dict:
        self.seen += 1
        random.random(), np.random.random(), torch.rand(1)
        return dict(inputs=torch.zeros(3, 4, 4), data_samples=None)


class _Images(BaseDataset):
    def load_data_list(self) -> list[dict]:
        return [dict(img_path='a.png')]


def test_leaves_no_trace() -> None:
    dataset = _Images(pipeline=[_Pack()])
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    check_pipeline(dataset, 'train_dataloader.dataset', None)
    assert dataset.pipeline.transforms[0].seen == 0
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_names_the_pipeline_without_transforms() -> None:
    with pytest.raises(InputError, match=r'^The val_dataloader\.dataset\.pipeline of a\.py gives no inputs'):
        check_pipeline(_Images(pipeline=[]), 'val_dataloader.dataset', 'a.py')


def test_other_data_sets_are_left_alone() -> None:
    check_pipeline([7], 'train_dataloader.dataset', None)
