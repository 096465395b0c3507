"""A training step on synthetic images."""

import pytest
import torch
from helpers.small_detectors import small_config, small_model
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config

from centermask.benchmark.training import POSITIVES, TrainStep, near, training_batch
from centermask.utils.errors import InputError


@pytest.mark.parametrize('kind', ['star', 'panoptic', 'Mask R-CNN'])
def test_step(kind: str) -> None:
    step = TrainStep(small_config(kind), small_model(kind).model, 1, (64, 96))
    losses = step.run()
    assert step.facts() == {'input': [64, 85], 'positive RoIs': step.positives}
    assert torch.isfinite(losses['loss'])
    objects = len(step.batch['data_samples'][0].gt_instances)
    # Random weights may find a few more; Mask R-CNN would take 128.
    assert POSITIVES * objects <= step.positives < POSITIVES * objects + 10


def test_a_batch_at_the_configs_own_size() -> None:
    (image,) = training_batch(small_config('Mask R-CNN'), 1)['inputs']
    assert min(image.shape[-2:]) == 800


def test_a_wrapped_data_set() -> None:
    config = small_config('star')
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=config.train_dataloader.dataset)
    (image,) = training_batch(config, 1, (64, 96))['inputs']
    assert image.shape == (3, 64, 85)


def test_boxes_near_objects() -> None:
    objects = torch.tensor([[10.0, 20, 110, 60], [5, 5, 13, 25]])
    boxes = near(objects)
    overlaps = bbox_overlaps(boxes, objects)
    assert torch.equal(overlaps.argmax(1), torch.tensor([0, 1]).repeat(POSITIVES - 1))
    assert overlaps.amax(1).min() > 0.6
    assert overlaps.amax(1).max() < 0.99


def test_a_config_on_other_data() -> None:
    with pytest.raises(InputError, match='--train: the config trains on no data set in COCO format'):
        training_batch(Config(dict(train_dataloader=dict(dataset=dict(type='VOCDataset')))), 1)
