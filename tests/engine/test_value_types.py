"""Values of wrong types are told apart from those that classes take in spite of their annotations."""

from pathlib import Path
from typing import Any

import pytest
from helpers.read_configs import find_config
from mmengine.config import Config

from centermask.engine.value_types import check_values
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.mark.parametrize(
    'name',
    [
        'centermask-lite-star_v2-19-slim_shapes',
        'centermask_v1-39-residual-se_fpn_1x_coco',
        'mask-rcnn_x101_fpn_3x_coco',
        'retinamask_r101_fpn_2x_coco',
        'yolact-550_r50_coco',
    ],
)
def test_accepts_the_configs(name: str) -> None:
    check_values(Config.fromfile(find_config(name)))


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        ('train_cfg.max_iters', 1e5),
        ('train_dataloader.batch_sampler', dict(type='AspectRatioBatchSampler')),
        ('optim_wrapper.accumulative_counts', 2),
        ('optim_wrapper.optimizer.lr', 1),
        ('optim_wrapper.clip_grad.norm_type', float('inf')),
        ('param_scheduler.0.eta_min', None),
        ('default_hooks.checkpoint.save_best', ['coco/bbox_mAP', 'coco/segm_mAP']),
        ('visualizer.vis_backends', [dict(type='LocalVisBackend')]),  # annotated as a dict
        ('resume', True),
        ('no_argument_of_the_runner.interval', 'x'),
    ],
)
def test_accepts(place: str, value: object) -> None:
    check_values(Config(_nested(place, value)))


@pytest.mark.parametrize(
    ('place', 'value', 'words'),
    [
        (
            'model.rpn.assigner',
            dict(type='MaxIoUAssigner', pos_iou_thr='x'),
            "assigner.pos_iou_thr can't be 'x': it is a",
        ),
        ('model.backbone', dict(type='ResNet', norm_eval='no'), "norm_eval can't be 'no': it is True or False"),
        ('train_dataloader.dataset.pipeline', [dict(type='RandomFlip', prob='x')], "pipeline.0.prob can't be 'x'"),
        ('train_dataloader.dataset', dict(type='CocoDataset', data_root=5), "data_root can't be 5: it is text or None"),
        (
            'param_scheduler',
            [dict(type='CosineAnnealingLR', T_max=0)],
            "param_scheduler.0.T_max can't be 0: it is above",
        ),
        ('train_cfg.max_iters', '9k', "train_cfg.max_iters can't be '9k': it is a whole number"),
        ('randomness.deterministic', 'x', "randomness.deterministic can't be 'x': it is True or False"),
        ('log_level', 5, "log_level can't be 5: it is text"),
    ],
)
def test_refuses(place: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=r'^In the config None ') as error:
        check_values(Config(_nested(place, value)))
    assert words in str(error.value)


def _nested(place: str, value: Any) -> dict:
    for key in reversed(place.split('.')):
        value = {key: value}
    return value
