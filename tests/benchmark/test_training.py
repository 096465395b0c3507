"""A training step on synthetic images, and the loader's rate."""

from pathlib import Path

import pytest
import torch
from helpers.small_detectors import small_config, small_model
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config

from centermask.benchmark import training
from centermask.benchmark.training import POSITIVES, TrainStep, near, training_set
from centermask.utils.errors import InputError


@pytest.mark.parametrize('kind', ['star', 'Mask R-CNN'])
def test_step(kind: str) -> None:
    step = TrainStep(small_config(kind), small_model(kind).model, 1, (64, 96))
    assert step.input_size == (64, 85)
    losses = step.run()
    assert torch.isfinite(losses['loss'])
    objects = len(step.batch['data_samples'][0].gt_instances)
    # Random weights may find a few more; Mask R-CNN would take 128.
    assert POSITIVES * objects <= step.positives < POSITIVES * objects + 10


def test_loader_at_the_configs_own_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, 'LOADED', 1)
    threads = torch.get_num_threads()
    assert training.loader_rate(small_config('Mask R-CNN')) > 0
    assert torch.get_num_threads() == threads
    assert min(training_set(small_config('Mask R-CNN'), tmp_path, 1)[0]['inputs'].shape[-2:]) == 800


def test_boxes_near_objects() -> None:
    objects = torch.tensor([[10.0, 20, 110, 60], [5, 5, 13, 25]])
    boxes = near(objects)
    overlaps = bbox_overlaps(boxes, objects)
    assert torch.equal(overlaps.argmax(1), torch.tensor([0, 1]).repeat(POSITIVES - 1))
    assert overlaps.amax(1).min() > 0.6
    assert overlaps.amax(1).max() < 0.99


def test_a_config_on_other_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='--train: the config trains on no data set in COCO format'):
        training_set(Config(dict(train_dataloader=dict(dataset=dict(type='VOCDataset')))), tmp_path, 1)
