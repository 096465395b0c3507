"""Unusual data, from the annotation file through the recipe's own pipeline to gradients and results."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.odd_data import box, find, learn, load, rle, truth
from helpers.small_model import small_model
from mmdet.registry import METRICS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from centermask.mask_pasting import paste

RECIPES = pytest.mark.parametrize('recipe', ['star', 'paper'])


@RECIPES
@pytest.mark.parametrize('crowd', [False, True])
def test_no_object_in_the_batch(tmp_path: Path, recipe: str, crowd: bool) -> None:
    """With no objects, or only a crowd, all locations are background."""
    annotations = [box(10, 10, 50, 50, iscrowd=1)] if crowd else []
    data = load(tmp_path, recipe, [annotations, annotations])
    assert [len(sample.ignored_instances) for sample in data['data_samples']] == [len(annotations)] * 2
    losses = learn(small_model(recipe), data)
    assert losses.pop('loss') == pytest.approx(losses.pop('loss_cls'))
    assert set(losses.values()) == {0.0}


@RECIPES
def test_boxes_under_a_pixel_after_resizing(tmp_path: Path, recipe: str) -> None:
    small = [box(100 * i, 90, 3, 2.5) for i in range(1, 6)]
    data = load(tmp_path, recipe, [[*small, box(200, 200, 300, 200)], small], size=(640, 480), scale=(64, 48))
    assert [len(objects) for objects in truth(data)] == [6, 5]
    sides = truth(data)[1].bboxes.tensor[:, 2:] - truth(data)[1].bboxes.tensor[:, :2]
    assert (sides < 0.31).all() and (sides > 0).all()
    losses = learn(small_model(recipe), data)
    assert losses['loss_bbox'] > 0


@RECIPES
def test_1000_objects_in_an_image(tmp_path: Path, recipe: str) -> None:
    objects = [box(8 * (i % 40), 8 * (i // 40), 6, 7, label=i % 3) for i in range(1000)]
    data = load(tmp_path, recipe, [objects], size=(320, 200), scale=(320, 200))
    assert len(truth(data)[0]) == 1000
    losses = learn(small_model(recipe), data)
    assert losses['loss_mask'] > 0 and losses['loss_bbox'] > 0


@RECIPES
@pytest.mark.parametrize('size', [(1, 4000), (4000, 1)])
def test_image_of_one_pixel_by_4000(tmp_path: Path, recipe: str, size: tuple[int, int]) -> None:
    width, height = size
    thing = box(1000 * (width > 1), 1000 * (height > 1), min(width, 2000), min(height, 2000))
    for _ in range(4):  # flipped or not
        data = load(tmp_path, recipe, [[thing]], size, scale=None)
        assert sorted(data['inputs'][0].shape) == [2, 3, 1333]
    learn(small_model(recipe), data)
    find(small_model(recipe), load(tmp_path, recipe, [[thing]], size, scale=None, test=True))


@RECIPES
def test_objects_touch_and_leave_the_image(tmp_path: Path, recipe: str) -> None:
    objects = [
        box(0, 0, 128, 96),
        box(0, 0, 40, 30),
        box(98, 66, 30, 30),
        box(-20, -15, 50, 40),
        box(100, 70, 60, 60),
        box(-30, -30, 200, 170),
        box(127, 95, 1, 1),
    ]
    data = load(tmp_path, recipe, [objects])
    losses = learn(small_model(recipe), data)
    assert losses['loss_mask'] > 0


@RECIPES
def test_object_of_many_polygons(tmp_path: Path, recipe: str) -> None:
    parts = [box(10 + 5 * (i % 20), 10 + 6 * (i // 20), 3, 4)['segmentation'][0] for i in range(240)]
    data = load(tmp_path, recipe, [[box(10, 10, 98, 70, segmentation=parts)]])
    assert len(truth(data)[0].masks.masks[0]) == 240
    assert learn(small_model(recipe), data)['loss_mask'] > 0


@RECIPES
def test_object_with_holes_by_rle(tmp_path: Path, recipe: str) -> None:
    mask = np.zeros((96, 128), np.uint8)
    mask[20:80, 20:100] = 1
    mask[30:70, 30:50] = mask[30:70, 60:90] = 0
    mask[40:60, 65:85] = 1  # an island
    data = load(tmp_path, recipe, [[box(20, 20, 80, 60, segmentation=rle(mask))]])
    (learned,) = truth(data)[0].masks.to_ndarray()
    assert abs(int(learned.sum()) - int(mask.sum())) < 100  # of 3600 pixels; 1800 are holes
    assert learn(small_model(recipe), data)['loss_mask'] > 0


@RECIPES
def test_all_objects_of_one_class(tmp_path: Path, recipe: str) -> None:
    """The scores of the two absent classes are lowered, and AP leaves these classes out."""
    objects = [[box(20 * i, 15 * i, 40, 35, label=1, iscrowd=0) for i in range(4)]] * 2
    model, data = small_model(recipe), load(tmp_path, recipe, objects)
    assert learn(model, data)['loss_mask'] > 0
    gradient = model.bbox_head.conv_cls.bias.grad
    assert gradient[0] > 0 and gradient[2] > 0  # towards lower scores

    metric = METRICS.build(
        dict(
            type='CenterMaskCocoMetric',
            ann_file=str(tmp_path / 'annotations.json'),
            metric=['bbox', 'segm'],
            classwise=True,
        )
    )
    metric.dataset_meta = {'classes': ['class 0', 'class 1', 'class 2']}
    for sample in load(tmp_path, recipe, objects, scale=(128, 96), test=True)['data_samples']:
        boxes = torch.tensor([[20.0 * i, 15 * i, 20 * i + 40, 15 * i + 35] for i in range(4)])
        masks = torch.from_numpy(paste(np.ones((4, 28, 28), np.float32), boxes.numpy(), (96, 128), 0.5, 'sampled'))
        found = dict(bboxes=boxes, scores=torch.ones(4), labels=torch.ones(4, dtype=torch.long), masks=masks)
        metric.process({}, [dict(pred_instances=found, img_id=sample.img_id, ori_shape=(96, 128))])
    scores = metric.evaluate(2)
    assert scores['coco/bbox_mAP'] > 0.99 and scores['coco/segm_mAP'] > 0.9
    assert np.isnan(scores['coco/segm_class 0_precision']) and scores['coco/bbox_class 1_precision'] > 0.9


@RECIPES
def test_one_class(tmp_path: Path, recipe: str) -> None:
    model = small_model(recipe, {'num_classes': 1, 'test_cfg.score_thr': 0.001})
    learn(model, load(tmp_path, recipe, [[box(20, 15, 40, 35)]], classes=1))
    (result,) = find(model, load(tmp_path, recipe, [[]], classes=1, test=True))
    assert len(result.pred_instances) and not result.pred_instances.labels.any()


class _Largest(TorchDispatchMode):
    """Records the size of the largest tensor that is computed."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor))])
        return result


@RECIPES
def test_1200_classes(tmp_path: Path, recipe: str) -> None:
    """With as many classes as LVIS has, no masks of all classes are computed, in training or testing."""
    model = small_model(recipe, {'num_classes': 1200, 'test_cfg.score_thr': 0.001, 'test_cfg.max_per_img': 30})
    objects = [box(24 * (i % 5), 24 * (i // 5), 20 + i, 22, label=60 * i + 59) for i in range(20)]
    with _Largest() as largest:
        losses = learn(model, load(tmp_path, recipe, [objects], classes=1200))
    assert losses['loss_mask'] > 0
    assert largest.numbers < 20 * 1200 * 28 * 28 / 4
    with _Largest() as largest:
        (result,) = find(model, load(tmp_path, recipe, [[]], classes=1200, test=True))
    assert len(result.pred_instances) == 30
    assert largest.numbers < 30 * 1200 * 28 * 28 / 4
