"""Configs are checked before anything is built: names of options, types and arguments, and values by annotation."""

from typing import Any, get_type_hints

import pytest
from helpers.read_configs import read_config
from mmengine.config import Config
from mmengine.hub import get_config

from centermask.engine.config_check import REGISTRIES, check_config, check_options
from centermask.utils.errors import InputError


@pytest.fixture(scope='module')
def config() -> Config:
    return read_config('centermask-lite-star_v2-19-slim_shapes')


@pytest.mark.parametrize(
    'option',
    [
        'model.backbone.norm_eval',  # in the config
        'model.backbone.init_cfg.type',  # of a value that is None, with _delete_
        'model.test_cfg.mask_format',  # a new entry of a dict without a type
        'optim_wrapper.clip_grad.norm_type',
        'train_dataloader.pin_memory',
        'train_dataloader.dataset.pipeline.3.prob',
        'randomness.deterministic',
        'load_from',
        'find_unused_parameters',  # the runner reads it, but not as an argument
    ],
)
def test_options_that_change_something(config: Config, option: str) -> None:
    check_options(config, [option, 'model.backbone.init_cfg._delete_'])


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('model.test_cfg.scor_thr', "model.test_cfg has no 'scor_thr'; did you mean score_thr?"),
        ('default_hooks.chekpoint.interval', 'did you mean checkpoint?'),
        ('train_dataloader.num_wokers', 'did you mean num_workers?'),
        ('lod_from', "the config has no 'lod_from'; did you mean load_from?"),
        ('modl.backbone.norm_eval', 'did you mean model?'),
        ('lr', "the config has no 'lr'; give the dotted key of an entry."),
        ('param_scheduler.end', 'param_scheduler is a list of param_scheduler.0 to 1.'),
        ('train_dataloader.dataset.pipeline.9.prob', 'is a list of train_dataloader.dataset.pipeline.0 to '),
        ('model.backbone.arch.x', "model.backbone.arch is '19-slim' and has no entries; add model.backbone.arch._del"),
        (
            'data_root',
            'the config file has used already; set train_dataloader.dataset.data_root and val_dataloader.dataset.data_',
        ),
        ('metainfo.classes', 'set train_dataloader.dataset.metainfo and val_dataloader.dataset.metainfo'),
    ],
)
def test_options_that_change_nothing(config: Config, option: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        check_options(config, [option])
    assert str(error.value).startswith(f'--cfg-options {option}: ')
    assert words in str(error.value)


@pytest.mark.parametrize(
    'name',
    [
        'centermask-lite-star_v2-19-slim_shapes',
        'centermask_v1-39-residual-se_fpn_1x_coco',
        'centermask-star_v2-99-dcn_fpn_3x_coco',
        'mask-rcnn_x101_fpn_3x_coco',
        'retinamask_r101_fpn_2x_coco',
        'yolact-550_r50_coco',
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
        'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco',
        'mmdet::yolact/yolact_r50_1xb8-55e_coco',
    ],
)
def test_configs_pass(name: str) -> None:
    """Values of which MMDetection's annotations aren't true pass, too."""
    check_config(get_config(f'{name}.py') if name.startswith('mmdet::') else read_config(name))


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        ('train_cfg', dict(type='IterBasedTrainLoop', max_iters=1e5)),
        ('train_dataloader.batch_sampler', dict(type='AspectRatioBatchSampler')),
        ('optim_wrapper', dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1), paramwise_cfg={})),
        ('default_hooks', dict(visualization=None, checkpoint=dict(type='CheckpointHook', save_best=['a', 'b']))),
        ('visualizer', dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])),
        ('model', dict(type='VoVNet', arch='39', dcn_stages=[False, True, True, True], norm_cfg=dict(type='BN'))),
        ('model.backbone', dict(type='ResNet', dcn=dict(type='DCNv2', deformable_groups=1))),  # a deprecated name
        ('model.neck', dict(type='no_name_that_is_near_to_another')),  # MMEngine refuses it, if it is built
        ('a_variable', dict(type='VovNet')),
    ],
)
def test_values_that_fit(place: str, value: object) -> None:
    check_config(_nested(place, value))


@pytest.mark.parametrize(
    ('place', 'value', 'words'),
    [
        (
            'model.backbone.type',
            'VovNet',
            'model.backbone.type is VovNet, which is in no registry; did you mean VoVNet?',
        ),
        (
            'model.backbone',
            dict(type='VoVNet', arch='39', nrom_eval=True),
            'backbone.nrom_eval is no argument of VoVNet; did you mean norm_eval?',
        ),
        (
            'model.backbone',
            dict(type='VoVNet', spek='39'),
            'model.backbone.spek is no argument of VoVNet, which takes arch, attention, ',
        ),
        (
            'model.backbone',
            dict(type='VoVNet', arch='39', attention='esse'),
            "attention can't be 'esse': VoVNet takes 'ese' or 'se' or 'none'.",
        ),
        ('model.backbone', dict(type='ResNet', norm_eval='no'), "norm_eval can't be 'no': ResNet takes bool."),
        (
            'model.train_cfg.assigner',
            dict(type='MaxIoUAssigner', pos_iou_thr='x'),
            "assigner.pos_iou_thr can't be 'x': MaxIoUAssigner takes float.",
        ),
        (
            'model.mask_iou_head',
            dict(type='MaskScoringHead', share='all'),
            'share is no argument of MaskScoringHead; it was renamed to area_ratio.',
        ),
        (
            'train_dataloader.dataset',
            dict(type='CocoDataset', pipeline=[dict(type='InclusiveFlip', prob=0.5)]),
            'dataset.pipeline.0.type is InclusiveFlip, which is in no registry; it was renamed to LegacyFlip.',
        ),
        (
            'train_dataloader.dataset',
            dict(type='CocoDataset', pipeline=[dict(type='LoadAnnotations', with_mask='no')]),
            "pipeline.0.with_mask can't be 'no': LoadAnnotations takes bool.",
        ),
        (
            'train_dataloader.dataset',
            dict(type='CocoDataset', pipeline=[dict(type='LegacyBoxes', zzzz=[(160, 120)])]),
            'pipeline.0.zzzz is no argument of LegacyBoxes, which takes none.',
        ),
        (
            'train_dataloader.dataset',
            dict(type='CocoDataset', data_root=5),
            "data_root can't be 5: CocoDataset takes str or None.",
        ),
        ('train_dataloader', 7, "train_dataloader can't be 7: Runner takes "),
        (
            'train_cfg',
            dict(type='IterBasedTrainLoop', max_iter=9),
            'train_cfg.max_iter is no argument of IterBasedTrainLoop; did you mean max_iters?',
        ),
        (
            'train_cfg',
            dict(type='IterBasedTrainLoop', max_iters='9k'),
            "train_cfg.max_iters can't be '9k': IterBasedTrainLoop takes int.",
        ),
        (
            'param_scheduler',
            [dict(type='LinearRL')],
            'param_scheduler.0.type is LinearRL, which is in no registry; did you mean LinearLR?',
        ),
        (
            'optim_wrapper.clip_grad',
            dict(max_norm='x'),
            "optim_wrapper.clip_grad.max_norm can't be 'x': clip_grad_norm_ takes float.",
        ),
        ('randomness.deterministic', 'x', "randomness.deterministic can't be 'x': set_randomness takes bool."),
        ('log_level', 5, "log_level can't be 5: Runner takes str."),
    ],
)
def test_faults(place: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=r'^In the config None ') as error:
        check_config(Config(_nested(place, value)))
    assert words in str(error.value)


def test_annotations_of_this_package_can_be_checked() -> None:
    """A name that is imported for type checkers alone would switch the check of a class off."""
    kinds = {kind for registry in REGISTRIES for kind in registry.module_dict.values()}
    ours = [kind for kind in kinds if kind.__module__.startswith('centermask.')]
    assert len(ours) > 15
    for kind in ours:
        get_type_hints(kind.__init__)


def _nested(place: str, value: Any) -> dict:
    for key in reversed(place.split('.')):
        value = {key: value}
    return value
