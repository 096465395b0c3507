"""Options of a training, as they change a config."""

import pytest
from helpers.read_configs import read_config
from mmdet.registry import MODELS

from centermask.engine.train_options import average_weights, freeze, monitored, save_best, stop_early
from centermask.utils.errors import InputError

DEMO = 'demo/centermask-lite-star_v2-19-slim_shapes'
MOBILE = 'centermask-lite_mobilenetv2_fpn_4x_coco'


def test_mask_ap_is_compared_and_box_ap_without_masks() -> None:
    cfg = read_config(DEMO)
    assert monitored(cfg) == 'coco/segm_mAP'
    cfg.val_evaluator.metric = 'bbox'
    assert monitored(cfg) == 'coco/bbox_mAP'
    cfg.val_evaluator = dict(type='PanopticQuality')
    assert monitored(cfg) is None and save_best(cfg) == ''
    with pytest.raises(InputError, match=r'^--patience: the config .* has no val_evaluator that tests masks or boxes'):
        stop_early(cfg, 2)


def test_what_the_config_says_is_best_stays() -> None:
    cfg = read_config(DEMO)
    cfg.default_hooks.checkpoint.update(save_best='loss', rule='less')
    save_best(cfg)
    assert (cfg.default_hooks.checkpoint.save_best, cfg.default_hooks.checkpoint.rule) == ('loss', 'less')


def test_hooks_come_after_those_of_the_config() -> None:
    cfg = read_config(DEMO)
    cfg.custom_hooks = [dict(type='SyncBuffersHook')]
    average_weights(cfg)
    average_weights(cfg)  # there is one already
    stop_early(cfg, 2)
    stop_early(cfg, 3)  # of a config that a training with --patience 2 saved
    assert cfg.custom_hooks[2]['patience'] == 3
    assert [hook['type'] for hook in cfg.custom_hooks] == ['SyncBuffersHook', 'EMAHook', 'ResumableEarlyStoppingHook']
    assert cfg.custom_hooks[1]['momentum'] == pytest.approx(10 / cfg.train_cfg.max_iters)


def test_random_weights_are_not_frozen() -> None:
    cfg = read_config(DEMO)
    with pytest.raises(InputError, match='starts from random weights, which would stay: start from a trained model'):
        freeze(cfg, 1)
    cfg.load_from = 'start.pth'
    freeze(cfg, 1)
    assert cfg.model.backbone.frozen_stages == 1


@pytest.mark.parametrize(('config', 'most'), [(DEMO, 4), ('centermask_r50_fpn_3x_coco', 4), (MOBILE, 7)])
def test_stages_to_freeze(config: str, most: int) -> None:
    cfg = read_config(config)
    cfg.load_from = 'start.pth'
    freeze(cfg, most)
    cfg.model.backbone.init_cfg = None
    MODELS.build(cfg.model.backbone)
    with pytest.raises(InputError, match=rf'^--freeze {most + 1}: the backbone of .* has {most} stages: give at most'):
        freeze(cfg, most + 1)
