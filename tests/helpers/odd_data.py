"""Batches of unusual images, and what holds of a model's losses and results on any of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_utils
from mmdet.models.detectors import BaseDetector
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from PIL import Image

from helpers.read_configs import read_config
from helpers.small_model import without_gradient

RECIPES = {'star': '_base_/datasets/coco_star', 'paper': '_base_/datasets/coco_paper'}


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
    config: str,
    images: list[list[dict]],
    size: tuple[int, int] = (128, 96),
    scale: tuple[int, int] | None = (128, 96),
    classes: int = 3,
    test: bool = False,
) -> dict:
    """Load a batch of images of noise with these objects as a config trains or tests.

    Args:
        config: ``'star'`` or ``'paper'`` for the recipe's, or the name of one.
        images: the annotations of each image.
        size: width and height of the images in pixels.
        scale: the size that the pipeline resizes to; None keeps the config's own, about 1333 by 800.
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

    loader = 'test_dataloader' if test else 'train_dataloader'
    pipeline = read_config(RECIPES.get(config, config))[loader].dataset.pipeline
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


def learn(model: BaseDetector, data: dict) -> dict[str, float]:
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


def find(model: BaseDetector, data: dict, beyond: bool = False) -> list[DetDataSample]:
    """Check that a batch's results are finite and inside their images, ``beyond`` which boxes may go; return them."""
    results = model.eval().test_step(data)
    for result in results:
        found, (height, width) = result.pred_instances, result.ori_shape
        assert found.masks.shape == (len(found), height, width)
        assert all(found[name].isfinite().all() for name in ('bboxes', 'scores', 'mask_scores') if name in found)
        assert (found.bboxes >= 0).all()
        assert beyond or (found.bboxes <= found.bboxes.new_tensor([width, height] * 2)).all()
    return results


def truth(data: dict) -> list[InstanceData]:
    return [sample.gt_instances for sample in data['data_samples']]
