"""Unusual data through ShapeMask's pipelines to gradients and results."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.read_configs import read_config
from mmdet.registry import MODELS
from test_odd_data import box, learn, load, rle

from centermask.baselines.shapemask import ShapeMask


@cache
def _model() -> ShapeMask:
    """Return a narrow model of 3 classes without priors."""
    model = read_config('shapemask_r101_fpn_2x_coco').model
    model.num_classes = 3
    model.backbone.update(depth=50, base_channels=4, init_cfg=None)
    model.neck.update(in_channels=[16, 32, 64, 128], out_channels=16)
    model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    model.roi_head.update(in_channels=16, channels=8, num_convs=1, num_priors=2, priors=None)
    model.test_cfg.update(score_thr=0.0, nms_pre=20, max_per_img=10)
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    return built


def _load(folder: Path, *images: list[dict], **settings) -> dict:
    return load(folder, 'shapemask', [*images], **{'size': (200, 150), 'scale': (200, 200), **settings})


@pytest.mark.parametrize('crowd', [False, True])
def test_no_object_in_the_batch(tmp_path: Path, crowd: bool) -> None:
    """With no objects, or only a crowd, all anchors are background and no mask counts."""
    annotations = [box(10, 10, 50, 50, iscrowd=1)] if crowd else []
    losses = learn(_model(), _load(tmp_path, annotations, annotations))
    assert losses.pop('loss') == pytest.approx(losses.pop('loss_cls'))
    assert set(losses.values()) == {0.0}


def test_image_without_objects_beside_one_with(tmp_path: Path) -> None:
    losses = learn(_model(), _load(tmp_path, [], [box(20, 20, 100, 80)]))
    assert all(value > 0 for name, value in losses.items() if name != 'loss_prior')


@pytest.mark.parametrize(
    'objects',
    [
        [box(100 * i, 90, 3, 2.5) for i in range(1, 6)],  # under a pixel after resizing
        [box(15 * (i % 40), 19 * (i // 40), 12, 14, label=i % 3) for i in range(1000)],
        [
            *(box(0, 0, 640, 480), box(-100, -80, 200, 150), box(600, 440, 90, 90)),
            *(box(-90, -90, 900, 700), box(639, 479, 1, 1), box(100, 100, 0.5, 200)),
        ],
        [box(20, 20, 300, 250, segmentation=rle(np.pad(np.ones((200, 250)), ((20, 260), (20, 370)))))],
    ],
    ids=['tiny', 'thousand', 'at the border', 'RLE'],
)
def test_objects(tmp_path: Path, objects: list[dict]) -> None:
    data = _load(tmp_path, objects, [box(50, 60, 300, 200)], size=(640, 480))
    losses = learn(_model(), data)
    assert losses['loss_bbox'] > 0 and losses['loss_fine'] > 0


@pytest.mark.parametrize('size', [(1, 4000), (4000, 1), (3, 2), (130, 257)])
def test_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    """Images of any size train and are detected in; results have their size."""
    width, height = size
    thing = box(width * 0.25, height * 0.25, max(width / 2, 1), max(height / 2, 1))
    learn(_model(), _load(tmp_path, [thing], [thing], size=size, scale=(256, 256)))
    results = _model().eval().test_step(_load(tmp_path, [thing], [thing], size=size, scale=(256, 256), test=True))
    for result in results:
        found = result.pred_instances
        assert found.masks.shape == (len(found), height, width) and len(found) == 10
        assert found.bboxes.isfinite().all() and found.scores.isfinite().all()
