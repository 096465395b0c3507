"""What modules refuse of a config: one sentence that names the module, the argument and the value."""

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from small_model import small_model_config

ROI_ALIGN = dict(type='RoIAlign', output_size=14)
# CenterMask hands this number to the parts that have classes.
CLASSES = {part: {'num_classes': 3} for part in ('bbox_head', 'roi_head.mask_head', 'roi_head.mask_iou_head')}
CASES: list[tuple[str, str, Any, str]] = [
    # Part of the model, argument, a value, a part of the sentence.
    ('backbone', 'arch', '38', "VoVNet has no variant '38'; known are 19, "),
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
    ('backbone', 'norm_cfg', 'BN', "VoVNet's norm_cfg is a dict such as dict(type='BN'), not 'BN'"),
    ('bbox_head', 'num_classes', 0, "CenterMaskFCOSHead's num_classes is a whole number from 1 up, not 0"),
    ('bbox_head', 'in_channels', -32, "CenterMaskFCOSHead's in_channels is a whole number from 1 up, not -32"),
    ('bbox_head', 'feat_channels', 2.5, "CenterMaskFCOSHead's feat_channels is a whole number from 1 up, not 2.5"),
    ('bbox_head', 'stacked_convs', -1, "CenterMaskFCOSHead's stacked_convs is a whole number from 0 up, not -1"),
    ('bbox_head', 'strides', [8, 0], "CenterMaskFCOSHead's strides are whole numbers above 0, not [8, 0]"),
    ('bbox_head', 'strides', [8, 16], 'regress_ranges has 5 levels and its strides 2: give a range for each stride'),
    ('bbox_head', 'regress_ranges', ((64, -1),), 'regress_ranges are pairs of a lesser and a greater length'),
    ('bbox_head', 'center_sample_radius', 0, 'center_sample_radius is a number above 0, not 0'),
    ('bbox_head', 'center_sample_radius', float('nan'), 'center_sample_radius is a number above 0, not nan'),
    ('bbox_head', 'conv_bias', 'yes', "CenterMaskFCOSHead's conv_bias is True, False or 'auto', not 'yes'"),
    *[
        ('bbox_head', name, 'no', f"CenterMaskFCOSHead's {name} is True or False, not 'no'")
        for name in ('sqrt_score', 'plus_one', 'average_normalizers', 'norm_on_bbox', 'centerness_on_reg')
    ],
    ('bbox_head', 'center_sampling', 'no', "CenterMaskFCOSHead's center_sampling is True or False, not 'no'"),
    ('roi_head.mask_roi_extractor', 'assignment', 'eq3', "assignment is 'scale_adaptive' or 'fpn', not 'eq3'"),
    ('roi_head.mask_roi_extractor', 'plus_one', 1, 'plus_one is True or False, not 1'),
    ('roi_head.mask_roi_extractor', 'out_channels', 0, 'out_channels is a whole number from 1 up, not 0'),
    *[
        ('roi_head.mask_roi_extractor', 'featmap_strides', strides, 'featmap_strides are powers of 2, each twice')
        for strides in ([], [8, 32], [6, 12], [16, 8], [0], [8.0], 8)
    ],
    ('roi_head.mask_roi_extractor', 'roi_layer', 'RoIAlign', 'roi_layer is a dict with a type and an output_size'),
    ('roi_head.mask_roi_extractor', 'roi_layer', {**ROI_ALIGN, 'output_size': 0}, 'roi_layer.output_size is a whole'),
    ('roi_head.mask_head', 'num_classes', '3', "SAGMaskHead's num_classes is a whole number from 1 up, not '3'"),
    ('roi_head.mask_head', 'spatial_attention', 'no', "SAGMaskHead's spatial_attention is True or False, not 'no'"),
    ('roi_head.mask_head', 'background_channel', 1, "SAGMaskHead's background_channel is True or False, not 1"),
    ('roi_head.mask_head', 'num_convs', -1, "SAGMaskHead's num_convs is a whole number from 0 up, not -1"),
    *[
        ('roi_head.mask_head', name, 0, f"SAGMaskHead's {name} is a whole number from 1 up, not 0")
        for name in ('in_channels', 'conv_kernel_size', 'conv_out_channels', 'roi_feat_size')
    ],
    ('roi_head.mask_head', 'class_agnostic', True, "SAGMaskHead's class_agnostic is False"),
    ('roi_head.mask_head', 'upsample_cfg', dict(type=None), "SAGMaskHead's upsample_cfg is a dict with a type"),
    ('roi_head.mask_head', 'upsample_cfg', dict(type='deconv', scale_factor=0), 'upsample_cfg.scale_factor is a whole'),
    ('roi_head.mask_iou_head', 'share', 'all', "share is 'exact_area' or 'first_polygon', not 'all'"),
    ('roi_head.mask_iou_head', 'background_channel', 'x', "MaskScoringHead's background_channel is True or False"),
    *[
        ('roi_head.mask_iou_head', name, 0, f"MaskScoringHead's {name} is a whole number from 1 up, not 0")
        for name in ('num_classes', 'in_channels', 'conv_out_channels', 'fc_out_channels', 'roi_feat_size')
    ],
    *[
        ('roi_head.mask_iou_head', name, -1, f"MaskScoringHead's {name} is a whole number from 0 up, not -1")
        for name in ('num_convs', 'num_fcs')
    ],
]


@pytest.mark.parametrize(('part', 'argument', 'value', 'words'), CASES)
def test_refused(part: str, argument: str, value: Any, words: str) -> None:
    config = small_model_config()
    for name in part.split('.'):
        config = config[name]
    with torch.device('meta'), pytest.raises(ValueError) as error:
        MODELS.build({**CLASSES.get(part, {}), **config, argument: value})
    message = str(error.value)
    assert words in message
    assert '\n' not in message
