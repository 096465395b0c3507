"""A step of training on made data, and what the loader gives."""

import json
from pathlib import Path

import pytest
import torch
from helpers.small_contestants import small_config
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config

from centermask.benchmark import training
from centermask.benchmark.training import OBJECTS, POSITIVES, near, prepare_training, training_set, write_data
from centermask.utils.errors import InputError


@pytest.mark.parametrize('kind', ['star', 'paper'])
def test_made_data(kind: str, tmp_path: Path) -> None:
    write_data(tmp_path, 2)
    coco = json.loads((tmp_path / 'annotations.json').read_text())
    assert len(coco['images']) == 2
    assert len(coco['annotations']) == 2 * OBJECTS
    assert all(annotation['area'] > 10 for annotation in coco['annotations'])
    data = training_set(small_config(kind, 5), tmp_path, (64, 96))
    assert len(data) == 2
    assert min(data[0]['inputs'].shape[-2:]) == 64
    assert len(data[0]['data_samples'].gt_instances) == OBJECTS


@pytest.mark.parametrize('kind', ['star', 'Mask R-CNN'])
def test_step(kind: str, calibrated) -> None:
    contestant, _ = calibrated(kind, 5)
    before = {name: tensor.clone() for name, tensor in contestant.model.state_dict().items()}
    step = prepare_training(small_config(kind, 5), contestant.model, 1, (64, 96))
    assert step.input_size == (64, 85)
    losses = step.run(0)
    assert torch.isfinite(losses['loss'])
    assert step.run(1)['loss_mask'] >= 0
    # In a small picture random weights find a few more; Mask R-CNN would take 128.
    assert POSITIVES * OBJECTS <= step.positives < 1.2 * POSITIVES * OBJECTS
    after = contestant.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)  # a copy was trained


@pytest.mark.parametrize('kind', ['star', 'Mask R-CNN'])
def test_loader_at_the_configs_own_size(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, 'LOADED', 1)
    sizes, build = [], training_set

    def seen(*arguments):
        data = build(*arguments)
        sizes.append(data[0]['inputs'].shape[-2:])
        return data

    monkeypatch.setattr(training, 'training_set', seen)
    threads = torch.get_num_threads()
    assert training.loader_rate(small_config(kind, 5)) > 0
    ((shorter, _),) = sizes
    assert shorter == 800 if kind == 'Mask R-CNN' else 500 < shorter <= 600
    assert torch.get_num_threads() == threads


def test_boxes_near_objects() -> None:
    objects = torch.tensor([[10.0, 20, 110, 60], [5, 5, 13, 25]])
    boxes = near(objects)
    overlaps = bbox_overlaps(boxes, objects)
    assert torch.equal(overlaps.argmax(1), torch.tensor([0, 1]).repeat(POSITIVES - 1))
    assert overlaps.amax(1).min() > 0.6
    assert overlaps.amax(1).max() < 0.99
    assert torch.equal(boxes, near(objects))


def test_a_config_on_other_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='--train: the config trains on no data set in COCO format'):
        training_set(Config(dict(train_dataloader=dict(dataset=dict(type='VOCDataset')))), tmp_path, None)
