"""Unusual data, from the annotation file through the recipe's own pipeline to gradients and results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from helpers.small_model import small_model, without_gradient
from mmdet.registry import DATASETS, METRICS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from centermask import CenterMask
from centermask.mask_pasting import paste

DATASETS_FOLDER = Path(__file__).resolve().parents[1] / 'configs/_base_/datasets'
RECIPES = pytest.mark.parametrize('recipe', ['star', 'paper'])


def box(left: float, top: float, width: float, height: float, label: int = 0, **fields: Any) -> dict:
    """Return the annotation of an object that fills its box."""
    right, bottom = left + width, top + height
    outline = [left, top, right, top, right, bottom, left, bottom]
    return {'category_id': label + 1, 'bbox': [left, top, width, height], 'segmentation': [outline], **fields}


def rle(mask: np.ndarray) -> dict:
    encoded = mask_utils.encode(np.asfortranarray(mask, np.uint8))
    return {'size': encoded['size'], 'counts': encoded['counts'].decode()}


def load(
    folder: Path,
    recipe: str,
    images: list[list[dict]],
    size: tuple[int, int] = (128, 96),
    scale: tuple[int, int] | None = (128, 96),
    classes: int = 3,
    test: bool = False,
) -> dict:
    """Load a batch of images of noise with these objects as the recipe trains or tests.

    Args:
        images: the annotations of each image.
        size: width and height of the images in pixels.
        scale: the size that the pipeline resizes to; None keeps the recipe's own, about 1333 by 800.
    """
    rng = np.random.default_rng(0)
    coco: dict = {'categories': [{'id': i + 1, 'name': f'class {i}'} for i in range(classes)]}
    coco |= {'images': [], 'annotations': []}
    for number, annotations in enumerate(images):
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(folder / f'{number}.png')
        coco['images'].append({'id': number, 'file_name': f'{number}.png', 'width': size[0], 'height': size[1]})
        for fields in annotations:
            coco['annotations'].append({'id': len(coco['annotations']), 'image_id': number, **fields})
    (folder / 'annotations.json').write_text(json.dumps(coco))

    config = Config.fromfile(DATASETS_FOLDER / ('coco_star.py' if recipe == 'star' else 'coco_paper.py'))
    pipeline = config.test_pipeline if test else config.train_pipeline
    for transform in pipeline:
        for key in ('scale', 'scales'):
            if scale is not None and key in transform:
                transform[key] = [scale, scale] if isinstance(transform[key], list) else scale
    dataset = DATASETS.build(
        dict(
            type='CenterMaskCocoDataset',
            data_root=str(folder),
            ann_file='annotations.json',
            data_prefix=dict(img='./'),
            metainfo=dict(classes=[f'class {i}' for i in range(classes)]),
            pipeline=pipeline,
            test_mode=test,
        )
    )
    return pseudo_collate([dataset[i] for i in range(len(images))])


def learn(model: CenterMask, data: dict) -> dict[str, float]:
    """Check that a batch's gradients are finite and reach all parameters; return its losses."""
    model.train().zero_grad()
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    total, logged = model.parse_losses(losses)
    total.backward()
    assert without_gradient(model) == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    values = {name: value.item() for name, value in logged.items()}
    assert all(np.isfinite(value) for value in values.values()), values
    return values


def find(model: CenterMask, data: dict) -> list[DetDataSample]:
    """Check that a batch's results are finite and inside their images; return them."""
    results = model.eval().test_step(data)
    for result in results:
        found, (height, width) = result.pred_instances, result.ori_shape
        assert found.masks.shape == (len(found), height, width)
        assert all(found[name].isfinite().all() for name in ('bboxes', 'scores', 'mask_scores'))
        assert (found.bboxes >= 0).all() and (found.bboxes <= found.bboxes.new_tensor([width, height] * 2)).all()
    return results


def truth(data: dict) -> list[InstanceData]:
    return [sample.gt_instances for sample in data['data_samples']]


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
