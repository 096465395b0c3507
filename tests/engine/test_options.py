"""What ``--cfg-options`` may name."""

from pathlib import Path

import pytest
from mmengine.config import Config

from centermask.engine.options import check_options
from centermask.utils.errors import InputError

CONFIG = Path(__file__).resolve().parents[2] / 'configs/demo/centermask-lite-star_v2-19-slim_shapes.py'


@pytest.fixture(scope='module')
def config() -> Config:
    return Config.fromfile(CONFIG)


@pytest.mark.parametrize(
    'option',
    [
        'model.backbone.norm_eval',  # in the config
        'model.backbone.with_cp',  # an argument of the class
        'model.backbone.norm_cfg.eps',  # of a layer of torch
        'model.backbone.norm_cfg.requires_grad',  # taken out by MMCV
        'model.bbox_head.center_sample_radius',  # of a base class, behind **kwargs
        'model.bbox_head.init_cfg',  # of a base of that
        'model.bbox_head.loss_cls.gamma',  # of a default that the config doesn't write
        'model.test_cfg.nms.iou_threshold',
        'model.train_cfg.sampler.num',
        'optim_wrapper.accumulative_counts',
        'optim_wrapper.constructor',
        'optim_wrapper.optimizer.betas',
        'optim_wrapper.clip_grad.max_norm',
        'optim_wrapper.paramwise_cfg.norm_decay_mult',
        'train_cfg.max_iters',
        'val_cfg.fp16',
        'train_dataloader.pin_memory',
        'train_dataloader.sampler.seed',
        'train_dataloader.dataset.indices',
        'train_dataloader.dataset.metainfo.palette',
        'train_dataloader.dataset.filter_cfg.min_size',
        'train_dataloader.dataset.pipeline.3.prob',
        'val_evaluator.classwise',
        'param_scheduler.0.end',
        'default_hooks.checkpoint.save_best',
        'default_hooks.checkpoint.priority',
        'randomness.seed',
        'randomness.deterministic',
        'env_cfg.dist_cfg.timeout',
        'log_processor.window_size',
        'auto_scale_lr.base_batch_size',
        'load_from',
        'find_unused_parameters',
        'model_wrapper_cfg.detect_anomalous_params',
        'custom_hooks',
    ],
)
def test_accepts(config: Config, option: str) -> None:
    check_options(config, {option: 1})


@pytest.mark.parametrize(
    ('option', 'near'),
    [
        ('model.backbone.nrom_eval', 'did you mean model.backbone.norm_eval?'),
        ('model.backbone.norm_cfg.epss', 'did you mean model.backbone.norm_cfg.eps?'),
        ('model.bbox_head.center_sampel_radius', 'did you mean model.bbox_head.center_sample_radius?'),
        ('model.test_cfg.scor_thr', 'did you mean model.test_cfg.score_thr?'),
        ('model.test_cfg.x', 'known are mask_format, mask_thr_binary, max_per_img, nms, nms_pre, score_thr.'),
        ('optim_wrapper.optimizer.l', 'did you mean optim_wrapper.optimizer.lr?'),
        ('optim_wrapper.clip_grad.max_nrm', 'did you mean optim_wrapper.clip_grad.max_norm?'),
        ('train_cfg.max_iter', 'did you mean train_cfg.max_iters?'),
        ('val_cfg.fp', 'did you mean val_cfg.fp16?'),
        ('train_dataloader.num_wokers', 'did you mean train_dataloader.num_workers?'),
        ('train_dataloader.dataset.annfile', 'did you mean train_dataloader.dataset.ann_file?'),
        ('train_dataloader.dataset.pipeline.3.probs', 'did you mean train_dataloader.dataset.pipeline.3.prob?'),
        ('train_dataloader.dataset.pipeline.9.prob', 'its entries are train_dataloader.dataset.pipeline.0 to'),
        ('val_evaluator.clas_wise', 'did you mean val_evaluator.classwise?'),
        ('param_scheduler.0.ends', 'did you mean param_scheduler.0.end?'),
        ('param_scheduler.end', 'param_scheduler is a list, its entries are param_scheduler.0 to param_scheduler.1.'),
        ('default_hooks.checkpoint.intervall', 'did you mean default_hooks.checkpoint.interval?'),
        ('default_hooks.chekpoint.interval', 'did you mean default_hooks.checkpoint?'),
        ('randomness.sed', 'did you mean randomness.seed?'),
        ('lod_from', 'did you mean load_from?'),
        ('modl.backbone.norm_eval', 'did you mean model?'),
        ('paramwise_cfg.norm_decay_mult', "the config and the runner have no 'paramwise_cfg'"),
        ('model.backbone.init_cfg.checkpoint', 'add model.backbone.init_cfg._delete_=True to replace it.'),
        ('model.backbone.arch.x', "model.backbone.arch is '19-slim' in the config and has no entries"),
        ('data_root', 'set train_dataloader.dataset.data_root and val_dataloader.dataset.data_root and test_'),
        ('max_iters', 'max_iters is a variable that the config file has used already'),
        ('metainfo.classes', 'set train_dataloader.dataset.metainfo and val_dataloader.dataset.metainfo'),
    ],
)
def test_rejects(config: Config, option: str, near: str) -> None:
    with pytest.raises(InputError) as error:
        check_options(config, {option: 1})
    assert str(error.value).startswith(f'--cfg-options {option}: ')
    assert near in str(error.value)


def test_another_type_has_other_arguments(config: Config) -> None:
    options = {'model.backbone.type': 'ResNet', 'model.backbone.depth': 50}
    check_options(config, options)
    with pytest.raises(InputError, match=r"model\.backbone has no 'depth'"):
        check_options(config, {'model.backbone.depth': 50})


def test_an_entry_can_be_replaced(config: Config) -> None:
    place = 'model.backbone.init_cfg'
    options = {f'{place}._delete_': True, f'{place}.type': 'StrictPretrained', f'{place}.checkpoint': 'a.pth'}
    check_options(config, options)
    with pytest.raises(InputError, match=r'did you mean model\.backbone\.init_cfg\.checkpoint\?'):
        check_options(config, {**options, f'{place}.chekpoint': 'a.pth'})
