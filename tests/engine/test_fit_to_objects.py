"""Limits and image size fitted to the number and the size of the objects in own data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from centermask.datasets.coco_folder import Split
from centermask.engine.configs import load_config
from centermask.engine.fit_to_objects import fit_image_size, fit_limits

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
DEMO = CONFIGS / 'demo/centermask-lite-star_v2-19-slim_shapes.py'


def make_split(*counts: int, side: int = 10, image: int = 256) -> Split:
    """Return a split whose images hold as many squares of ``side`` pixels, in a grid."""
    boxes = []
    for count in counts:
        corners = np.stack(np.divmod(np.arange(count), 12), axis=1) * 20.0 + 3
        boxes.append((np.concatenate([corners, corners + side], axis=1), image, image))
    return Split(Path(), Path(), {}, [*range(len(counts))], Counter(), boxes)


@pytest.fixture
def cfg() -> Config:
    return Config(dict(model=dict(test_cfg=dict(max_per_img=50), train_cfg=dict(max_per_img=100, sampler=dict(num=8)))))


def test_limits_follow_the_densest_images(cfg: Config) -> None:
    [line] = fit_limits(cfg, [make_split(*range(1, 101)), make_split(101)], {})
    assert cfg.model.test_cfg.max_per_img == 150  # 1.25 of 101 is 127
    assert cfg.model.train_cfg.max_per_img == 150
    assert cfg.model.train_cfg.sampler.num == 91  # the 90th percentile of 1 to 101
    assert line.startswith('Objects: up to 101 an image: model.test_cfg.max_per_img 50 -> 150, ')


def test_limits_that_are_enough_or_chosen_stay(cfg: Config) -> None:
    before = cfg.model.copy()
    assert fit_limits(cfg, [make_split(8, 3)], {}) == []
    options = {f'model.{key}': 7 for key in ('test_cfg.max_per_img', 'train_cfg.max_per_img', 'train_cfg.sampler.num')}
    assert fit_limits(cfg, [make_split(400)], options) == []
    assert cfg.model == before


def test_a_config_without_these_limits_is_left_alone() -> None:
    cfg = Config(dict(model=dict(test_cfg=dict(rcnn=dict(max_per_img=100)))))
    assert fit_limits(cfg, [make_split(400)], {}) == []


def test_images_are_enlarged_for_small_objects() -> None:
    cfg = load_config(DEMO)  # resizes to 160 x 160, at which these have 4 pixels
    [line] = fit_image_size(cfg, make_split(100, side=6), {})
    steps = [cfg[f'{mode}_dataloader'].dataset.pipeline for mode in ('train', 'val', 'test')]
    [scale] = {step.scale for pipeline in steps for step in pipeline if 'Resize' in step.type}
    assert scale[0] == scale[1] and scale[0] % 32 == 0 and 320 <= scale[0] <= 512
    assert f'0.0% at {scale}, to which training and testing' in line
    tta = [step.scale[0] for step in cfg.tta_pipeline[1].transforms[0]]
    assert tta[0] < tta[1] == scale[0] < tta[2]
    assert fit_image_size(cfg, make_split(100, side=6), {}) == []  # now large enough


def test_image_sizes_that_are_too_large_are_only_proposed() -> None:
    cfg = load_config(CONFIGS / 'centermask-lite-star_v2-19_fpn_4x_coco.py')
    before = cfg.to_dict()
    [line] = fit_image_size(cfg, make_split(100, side=10, image=4000), {})
    assert 'set it in every pipeline' in line and cfg.to_dict() == before


def test_sizes_stay_where_larger_ones_lose_as_many() -> None:
    cfg = load_config(DEMO)
    split = make_split(*[1] * 10)
    split.boxes = [(np.repeat(np.array([[40.0, 40, 120, 120]]), 8, axis=0), 256, 256)] * 10  # eight in one place
    assert fit_image_size(cfg, split, {}) == []


def test_large_objects_and_chosen_sizes_stay() -> None:
    cfg = load_config(DEMO)
    before = cfg.to_dict()
    assert fit_image_size(cfg, make_split(16, side=19), {}) == []
    options = {'train_dataloader.dataset.pipeline.2.scale': (160, 160)}
    assert fit_image_size(cfg, make_split(100, side=6), options) == []
    assert cfg.to_dict() == before
