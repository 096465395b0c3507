"""Unusual data for the panoptic model, TensorMask and ShapeMask: finite losses and results, gradients for all."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.odd_data import box, find, learn, load
from helpers.read_configs import read_config
from helpers.small_model import small_model
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.structures import PixelData

CONFIGS = {
    'panoptic': 'panoptic-centermask-star_r50_fpn_3x_coco',
    'TensorMask': 'tensormask_r50_fpn_1x_coco',
    'ShapeMask': 'shapemask_r101_fpn_2x_coco',
}
FAMILIES = pytest.mark.parametrize('family', CONFIGS)


@pytest.fixture(scope='module')
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BaseDetector]:
    """Build a small model of a family with random weights, for three classes."""
    priors = tmp_path_factory.mktemp('priors') / 'priors.npy'
    np.save(priors, np.random.default_rng(0).uniform(0, 1, (4, 20, 32, 32)).astype(np.float32))

    def build(family: str) -> BaseDetector:
        torch.manual_seed(0)
        if family == 'panoptic':
            return small_model('panoptic', {'test_cfg.score_thr': 0.001})
        config = read_config(CONFIGS[family]).model
        config.num_classes = 3
        config.backbone.update(depth=18, init_cfg=None)
        config.neck.in_channels = [64, 128, 256, 512]
        config.test_cfg.update(score_thr=0.001, max_per_img=20, nms_pre=200)
        if family == 'ShapeMask':
            config.roi_head.update(priors=str(priors), num_convs=1)
            config.bbox_head.stacked_convs = 1
            config.train_cfg.num_masks = 2
        model = MODELS.build(config)
        model.init_weights()
        return model

    return build


def _load(folder: Path, family: str, *args, **kwargs) -> dict:
    """Load a batch; the semantic map of a panoptic model is unlabelled, but for a corner of things."""
    data = load(folder, 'star' if family == 'panoptic' else CONFIGS[family], *args, **kwargs)
    if family == 'panoptic':
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            semantic = torch.full((1, *image.shape[-2:]), 255)
            semantic[:, :8, :8] = 0
            sample.gt_sem_seg = PixelData(sem_seg=semantic)
    return data


@FAMILIES
@pytest.mark.parametrize('crowd', [False, True])
def test_no_object_in_the_batch(build: Callable, tmp_path: Path, family: str, crowd: bool) -> None:
    annotations = [box(10, 10, 50, 50, iscrowd=1)] if crowd else []
    losses = learn(build(family), _load(tmp_path, family, [annotations, annotations]))
    assert losses['loss_cls'] > 0
    without_objects = {'loss', 'loss_cls', 'loss_seg'}
    assert all(value == 0 for name, value in losses.items() if name not in without_objects), losses


@FAMILIES
def test_odd_objects(build: Callable, tmp_path: Path, family: str) -> None:
    """Boxes under a pixel after resizing, an object without outline, one over all of the image, many."""
    tiny = [box(100 * i, 90, 3, 2.5) for i in range(1, 4)]
    bare = box(300, 100, 80, 90, label=1)
    del bare['segmentation']
    objects = [*tiny, bare, box(0, 0, 640, 480, label=2), *(box(5 * i, 9 * i, 60, 50) for i in range(40))]
    data = _load(tmp_path, family, [objects, [bare]], size=(640, 480), scale=(128, 96))
    assert [len(sample.gt_instances) for sample in data['data_samples']] == [45, 1]
    losses = learn(build(family), data)
    assert losses['loss_bbox'] > 0


@FAMILIES
@pytest.mark.parametrize('size', [(1, 1), (1, 300), (300, 1)])
def test_image_of_one_pixel(build: Callable, tmp_path: Path, family: str, size: tuple[int, int]) -> None:
    model = build(family)
    learn(model, _load(tmp_path, family, [[box(0, 0, *size)]] * 2, size, scale=(64, 64)))
    # ShapeMask's boxes are clipped to the padded input.
    (result,) = find(model, _load(tmp_path, family, [[]], size, scale=(64, 64), test=True), family == 'ShapeMask')
    if family == 'panoptic':
        assert result.pred_panoptic_seg.sem_seg.shape == (1, *size[::-1])
