"""What modules refuse of a config: one sentence that names the module, the argument and the value."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_model import batch, picture, sample, small_model, small_model_config, square
from mmdet.registry import MODELS

from centermask import arguments, detector, fcos_head, sag_mask_head, scale_adaptive_roi_extractor, vovnet
from centermask.engine.options import _parameters

ROI_ALIGN = dict(type='RoIAlign', output_size=14)
EXTRACTOR = 'roi_head.mask_roi_extractor'
LOSSES = ('loss_cls', 'loss_bbox', 'loss_centerness')
SWITCHES = ('center_sampling', 'dcn_on_last_conv')
TRAIN_CFG, PREPROCESSOR = (small_model_config()[key] for key in ('train_cfg', 'data_preprocessor'))
# CenterMask hands this number to the parts that have classes.
CLASSES = {part: {'num_classes': 3} for part in ('bbox_head', 'roi_head.mask_head', 'roi_head.mask_iou_head')}
CASES: list[tuple[str, str, Any, str]] = [
    # Part of the model, argument, a value, a part of the sentence.
    ('backbone', 'arch', '38', "VoVNet's arch is one of 19, 19-dw, "),
    ('backbone', 'attention', 'esse', "VoVNet's attention is 'none', 'se' or 'ese', not 'esse'"),
    ('backbone', 'attention_blocks', 1, "VoVNet's attention_blocks is 'every' or 'last', not 1"),
    ('backbone', 'residual', 'False', "VoVNet's residual is True or False, not 'False'"),
    ('backbone', 'norm_eval', 1, "VoVNet's norm_eval is True or False, not 1"),
    ('backbone', 'with_cp', None, "VoVNet's with_cp is True or False, not None"),
    ('backbone', 'frozen_stages', 5, "VoVNet's frozen_stages is a whole number from -1 to 4, not 5"),
    ('backbone', 'frozen_stages', True, "VoVNet's frozen_stages is a whole number from -1 to 4, not True"),
    ('backbone', 'dcn_stages', (True, False), "VoVNet's dcn_stages is True or False for each of four stages"),
    ('backbone', 'dcn_stages', True, "VoVNet's dcn_stages is True or False for each of four stages, not True"),
    ('backbone', 'out_indices', (1, 2, 4), "VoVNet's out_indices are of 0, 1, 2 and 3 in this order, not (1, 2, 4)"),
    ('backbone', 'out_indices', (3, 2), "VoVNet's out_indices are of 0, 1, 2 and 3 in this order, not (3, 2)"),
    ('backbone', 'out_indices', (), "VoVNet's out_indices are of 0, 1, 2 and 3 in this order, not ()"),
    ('backbone', 'norm_cfg', 'BN', "VoVNet's norm_cfg is a dict with a type, not 'BN'"),
    ('backbone', 'norm_cfg', {}, "VoVNet's norm_cfg is a dict with a type, not {}"),
    ('backbone', 'init_cfg', 'a.pth', "VoVNet's init_cfg is a dict with a type, not 'a.pth'"),
    ('backbone', 'init_cfg', [dict(type='Normal'), 7], "VoVNet's init_cfg.1 is a dict with a type, not 7"),
    ('bbox_head', 'num_classes', 0, "CenterMaskFCOSHead's num_classes is a whole number from 1 up, not 0"),
    ('bbox_head', 'in_channels', -32, "CenterMaskFCOSHead's in_channels is a whole number from 1 up, not -32"),
    ('bbox_head', 'feat_channels', 2.5, "CenterMaskFCOSHead's feat_channels is a whole number from 1 up, not 2.5"),
    ('bbox_head', 'stacked_convs', -1, "CenterMaskFCOSHead's stacked_convs is a whole number from 0 up, not -1"),
    ('bbox_head', 'strides', [8, 0], "CenterMaskFCOSHead's strides are whole numbers above 0, not [8, 0]"),
    ('bbox_head', 'strides', [8, 16], 'regress_ranges are one for each of the 2 strides, not '),
    ('bbox_head', 'regress_ranges', ((64, -1),), 'regress_ranges are pairs of a lesser and a greater length'),
    ('bbox_head', 'regress_ranges', (('a', 'b'),), 'regress_ranges are pairs of a lesser and a greater length'),
    ('bbox_head', 'center_sample_radius', 0, 'center_sample_radius is a number above 0, not 0'),
    ('bbox_head', 'center_sample_radius', float('nan'), 'center_sample_radius is a number above 0, not nan'),
    ('bbox_head', 'conv_bias', 'yes', "CenterMaskFCOSHead's conv_bias is True, False or 'auto', not 'yes'"),
    *[
        ('bbox_head', name, 'no', f"CenterMaskFCOSHead's {name} is True or False, not 'no'")
        for name in ('sqrt_score', 'legacy_boxes', 'sync_avg_factor', 'norm_on_bbox', 'centerness_on_reg', *SWITCHES)
    ],
    *[
        ('bbox_head', name, 'x', f"CenterMaskFCOSHead's {name} is a dict with a type, not 'x'")
        for name in (*LOSSES, 'bbox_coder', 'conv_cfg', 'norm_cfg', 'cls_predictor_cfg', 'init_cfg')
    ],
    ('bbox_head', 'train_cfg', 7, "CenterMaskFCOSHead's train_cfg is a dict, not 7"),
    ('bbox_head', 'test_cfg', 7, "CenterMaskFCOSHead's test_cfg is a dict, not 7"),
    *[
        ('bbox_head', 'test_cfg', {'score_thr': value}, f'test_cfg.score_thr is a number from 0 to 1, not {value!r}')
        for value in ('a', True, -0.1, 50, float('nan'))
    ],
    ('bbox_head', 'test_cfg', {'nms': 'nms'}, "test_cfg.nms is a dict with a type, not 'nms'"),
    (
        'bbox_head',
        'test_cfg',
        {'nms': dict(type='nms', iou_threshold=6)},
        'test_cfg.nms.iou_threshold is a number from',
    ),
    ('bbox_head', 'test_cfg', {'nms': dict(type='exit')}, "test_cfg.nms.type is 'nms' or 'soft_nms', not 'exit'"),
    ('bbox_head', 'test_cfg', {'nms_pre': -1}, 'test_cfg.nms_pre is a whole number from 1 up, not -1'),
    ('bbox_head', 'test_cfg', {'max_per_img': 0}, 'test_cfg.max_per_img is a whole number from 1 up, not 0'),
    ('roi_head.mask_roi_extractor', 'assignment', 'eq3', "assignment is 'scale_adaptive' or 'fpn', not 'eq3'"),
    ('roi_head.mask_roi_extractor', 'legacy_boxes', 1, 'legacy_boxes is True or False, not 1'),
    ('roi_head.mask_roi_extractor', 'out_channels', 0, 'out_channels is a whole number from 1 up, not 0'),
    *[
        ('roi_head.mask_roi_extractor', 'featmap_strides', strides, 'featmap_strides are powers of 2, each twice')
        for strides in ([], [8, 32], [6, 12], [16, 8], [0], [8.0], 8)
    ],
    ('roi_head.mask_roi_extractor', 'roi_layer', 'RoIAlign', 'roi_layer is a dict with a type and an output_size'),
    ('roi_head.mask_roi_extractor', 'roi_layer', {**ROI_ALIGN, 'output_size': 0}, 'roi_layer.output_size is a whole'),
    ('roi_head.mask_roi_extractor', 'roi_layer', {**ROI_ALIGN, 'sampling_ratio': -1}, 'roi_layer.sampling_ratio is a'),
    ('roi_head.mask_roi_extractor', 'roi_layer', {**ROI_ALIGN, 'type': 'Roi'}, 'roi_layer.type is a layer of mmcv.ops'),
    ('roi_head.mask_roi_extractor', 'init_cfg', 7, 'init_cfg is a dict with a type, not 7'),
    ('roi_head.mask_head', 'num_classes', '3', "SAGMaskHead's num_classes is a whole number from 1 up, not '3'"),
    ('roi_head.mask_head', 'spatial_attention', 'no', "SAGMaskHead's spatial_attention is True or False, not 'no'"),
    ('roi_head.mask_head', 'legacy_background', 1, "SAGMaskHead's legacy_background is True or False, not 1"),
    ('roi_head.mask_head', 'num_convs', -1, "SAGMaskHead's num_convs is a whole number from 0 up, not -1"),
    *[
        ('roi_head.mask_head', name, 0, f"SAGMaskHead's {name} is a whole number from 1 up, not 0")
        for name in ('in_channels', 'conv_kernel_size', 'conv_out_channels', 'roi_feat_size')
    ],
    ('roi_head.mask_head', 'class_agnostic', True, "SAGMaskHead's class_agnostic is False"),
    ('roi_head.mask_head', 'upsample_cfg', dict(type=None), "SAGMaskHead's upsample_cfg is a dict with a type"),
    ('roi_head.mask_head', 'upsample_cfg', dict(type='deconv', scale_factor=0), 'upsample_cfg.scale_factor is a whole'),
    *[
        ('roi_head.mask_head', name, 'x', f"SAGMaskHead's {name} is a dict with a type, not 'x'")
        for name in ('conv_cfg', 'norm_cfg', 'predictor_cfg', 'loss_mask')
    ],
    ('roi_head.mask_head', 'init_cfg', dict(type='Normal'), "SAGMaskHead's init_cfg is None"),
    ('roi_head.mask_iou_head', 'share', 'all', "area_ratio is 'all_polygons' or 'first_polygon', not 'all'"),
    ('roi_head.mask_iou_head', 'legacy_background', 'x', "MaskScoringHead's legacy_background is True or False"),
    *[
        ('roi_head.mask_iou_head', name, 0, f"MaskScoringHead's {name} is a whole number from 1 up, not 0")
        for name in ('num_classes', 'in_channels', 'conv_out_channels', 'fc_out_channels', 'roi_feat_size')
    ],
    *[
        ('roi_head.mask_iou_head', name, -1, f"MaskScoringHead's {name} is a whole number from 0 up, not -1")
        for name in ('num_convs', 'num_fcs')
    ],
    *[
        ('roi_head.mask_iou_head', name, 'x', f"MaskScoringHead's {name} is a dict with a type, not 'x'")
        for name in ('loss_iou', 'init_cfg')
    ],
    ('roi_head', 'pasting', 'nearest', "CenterMaskRoIHead's pasting is 'sampled' or 'resized', not 'nearest'"),
    ('roi_head', 'sync_avg_factor', 1, "CenterMaskRoIHead's sync_avg_factor is True or False, not 1"),
    ('roi_head', 'train_cfg', {**TRAIN_CFG, 'mask_size': 0}, 'train_cfg.mask_size is a whole number from 1 up, not 0'),
    ('roi_head', 'test_cfg', {'mask_thr_binary': 50}, 'test_cfg.mask_thr_binary is a number from 0 to 1, not 50'),
    ('roi_head', 'test_cfg', {'mask_format': 'png'}, "test_cfg.mask_format is 'tensor' or 'rle', not 'png'"),
    ('', 'num_classes', 0, "CenterMask's num_classes is a whole number from 1 up, not 0"),
    *[
        ('', name, 'no', f"CenterMask's {name} is True or False, not 'no'")
        for name in ('channels_last', 'fuse_conv_bn', 'half_precision')
    ],
    ('', 'train_cfg', [], "CenterMask's train_cfg is a dict, not []"),
    ('', 'train_cfg', {**TRAIN_CFG, 'max_per_img': -1}, 'train_cfg.max_per_img is a whole number from 1 up, not -1'),
    ('', 'data_preprocessor', {**PREPROCESSOR, 'pad_size_divisor': 0}, 'data_preprocessor.pad_size_divisor is a whole'),
    ('', 'data_preprocessor', {**PREPROCESSOR, 'std': [1, 0, 1]}, 'std are three numbers above 0, not [1, 0, 1]'),
    ('', 'data_preprocessor', {**PREPROCESSOR, 'mean': [1]}, 'data_preprocessor.mean are three numbers, not [1]'),
    ('', 'test_cfg', 'x', "CenterMask's test_cfg is a dict, not 'x'"),
]
CONTRADICTIONS: dict[str, tuple[Any, str]] = {  # an argument that is right by itself, a part of the sentence
    'backbone.arch': ('39', 'neck.in_channels is [512, 768, 1024] by the outputs of the backbone, not [256, 384, 512]'),
    'neck.in_channels': ([1], 'neck.in_channels is [256, 384, 512] by the outputs of the backbone, not [1]'),
    'neck.start_level': (9, 'neck.start_level is a whole number from 0 to 2, not 9'),
    'neck.num_outs': (4, 'neck.num_outs is 5 by the number of bbox_head.strides, not 4'),
    'bbox_head.in_channels': (64, 'bbox_head.in_channels is 32 by neck.out_channels, not 64'),
    f'{EXTRACTOR}.featmap_strides': (
        [16, 32, 64],
        'is [8, 16, 32] by the first of bbox_head.strides, not [16, 32, 64]',
    ),
    f'{EXTRACTOR}.out_channels': (64, f'{EXTRACTOR}.out_channels is 32 by neck.out_channels, not 64'),
    f'{EXTRACTOR}.roi_layer.output_size': (7, f'mask_size is 14 by 2 times {EXTRACTOR}.roi_layer.output_size, not 28'),
    'roi_head.mask_head.in_channels': (64, 'roi_head.mask_head.in_channels is 32 by neck.out_channels, not 64'),
    'roi_head.mask_head.upsample_cfg': (
        dict(type='deconv', scale_factor=4),
        f'train_cfg.mask_size is 56 by 4 times {EXTRACTOR}.roi_layer.output_size, not 28',
    ),
    'roi_head.mask_iou_head.in_channels': (64, 'roi_head.mask_iou_head.in_channels is 32 by neck.out_channels, not 64'),
    'roi_head.mask_iou_head.roi_feat_size': (12, f'roi_feat_size is 14 by {EXTRACTOR}.roi_layer.output_size, not 12'),
    'train_cfg.mask_size': (13, f'train_cfg.mask_size is 28 by 2 times {EXTRACTOR}.roi_layer.output_size, not 13'),
}
PARTS = [part for part in dict.fromkeys(part for part, *_ in CASES) if part != 'roi_head' and part]


def _build(part: str, argument: str, value: Any) -> None:
    config = small_model_config()
    for name in part.split('.') if part else ():
        config = config[name]
    with torch.device('meta'):
        MODELS.build({**CLASSES.get(part, {}), **config, argument: value})


@pytest.mark.parametrize(('part', 'argument', 'value', 'words'), CASES)
def test_refused(part: str, argument: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError) as error:
        _build(part, argument, value)
    message = str(error.value)
    assert words in message
    assert '\n' not in message


@pytest.mark.parametrize(('part', 'argument', 'value', 'words'), CASES)
def test_without_the_guard(part: str, argument: str, value: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part is built as if nothing were wrong, or torch, MMCV or MMDetection stumbles in its own words."""
    for module in (arguments, detector, fcos_head, sag_mask_head, scale_adaptive_roi_extractor, vovnet):
        monkeypatch.setattr(module, 'refuse', lambda *args: None)
    try:
        _build(part, argument, value)
    except Exception as error:
        assert words not in str(error)


@pytest.mark.parametrize('argument', CONTRADICTIONS)
def test_contradiction_refused(argument: str) -> None:
    value, words = CONTRADICTIONS[argument]
    with pytest.raises(ValueError, match=r"^CenterMask's ") as error, torch.device('meta'):
        MODELS.build(small_model_config(changes={argument: value}))
    assert words in str(error.value)


@pytest.mark.parametrize('argument', CONTRADICTIONS)
def test_contradiction_without_the_guard(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step of a training stumbles, or features are read at the places of others."""
    monkeypatch.setattr(detector, 'check_parts', lambda *_: None)
    model = small_model(changes={argument: CONTRADICTIONS[argument][0]}).train()
    with nullcontext() if argument == f'{EXTRACTOR}.featmap_strides' else pytest.raises(Exception) as error:
        for objects in ([], [square(0, 4, 6, 40, 50)]):
            model.loss(*batch(model, [picture(64, 80)], [sample(64, 80, objects)]))
    assert error is None or "CenterMask's" not in str(error.value)


@pytest.mark.parametrize('part', PARTS)
def test_each_argument_has_a_case(part: str) -> None:
    config = small_model_config()
    for name in part.split('.'):
        config = config[name]
    names, complete = _parameters(MODELS.get(config['type']))
    assert complete
    assert names - {'loss_weight'} == {argument for owner, argument, *_ in CASES if owner == part}


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('backbone.arch', 'nonsense'),
        ('bbox_head.stacked_convs', -1),
        ('roi_head.mask_head.num_convs', -1),
        ('roi_head.mask_iou_head.area_ratio', 'nonsense'),
    ],
)
def test_by_the_command(key: str, value: object, config: Path, outcome: Callable, tmp_path: Path) -> None:
    model = dict(small_model_config(changes={key: value}))
    config.write_text(config.read_text().replace("dict(type='OneWeight')", repr(model)))
    argument = key.rpartition('.')[2]
    words = f'The model of {config}', f"'s {argument} is ", f'not {value!r}'
    assert outcome('train', config, '--work-dir', tmp_path / 'run').refused(*words)


def test_what_mmdetection_refuses_without_a_word(config: Path, outcome: Callable, tmp_path: Path) -> None:
    model = dict(small_model_config(changes={'neck.num_outs': 2}))
    config.write_text(config.read_text().replace("dict(type='OneWeight')", repr(model)))
    words = f'The model of {config} can\'t be built: AssertionError of FPN at "assert num_outs >= self.num_ins - st'
    assert outcome('train', config, '--work-dir', tmp_path / 'run').refused(words)
