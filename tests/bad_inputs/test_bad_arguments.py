"""Wrong arguments of the model's parts: one sentence with the dotted key, the value, and what the class takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.small_model import small_model_config
from mmengine.config import Config

from centermask.engine.config_check import check_config
from centermask.utils.errors import InputError

EXTRACTOR = 'roi_head.mask_roi_extractor'
CASES: list[tuple[str, Any, str]] = [  # dotted key, value, end of the sentence
    ('backbone.arch', '38', "VoVNet takes '19' or '19-dw' or '19-slim' or "),
    ('backbone.attention', 'esse', "VoVNet takes 'ese' or 'se' or 'none'."),
    ('backbone.attention_blocks', 1, "VoVNet takes 'every' or 'last'."),
    ('backbone.residual', 'False', 'VoVNet takes bool.'),
    ('backbone.with_cp', None, 'VoVNet takes bool.'),
    ('backbone.frozen_stages', 5, 'VoVNet takes -1 or 0 or 1 or 2 or 3 or 4.'),
    ('backbone.dcn_stages', True, 'VoVNet takes Sequence[bool].'),
    ('backbone.out_indices', (1, 2, 4), 'VoVNet takes Sequence['),
    ('backbone.norm_cfg', 'BN', 'VoVNet takes dict or None.'),
    ('backbone.init_cfg', 'a.pth', 'VoVNet takes dict or list[dict] or None.'),
    ('bbox_head.in_channels', '32', 'CenterMaskFCOSHead takes int.'),
    ('bbox_head.sqrt_score', 'no', 'CenterMaskFCOSHead takes bool.'),
    ('bbox_head.norm_on_bbox', 'no', 'CenterMaskFCOSHead takes bool.'),  # of MMDetection's base class
    ('neck.num_outs', 'x', 'FPN takes int.'),
    (f'{EXTRACTOR}.assignment', 'eq3', "ScaleAdaptiveRoIExtractor takes 'scale_adaptive' or 'fpn'."),
    (f'{EXTRACTOR}.featmap_strides', ['a', 'b'], 'ScaleAdaptiveRoIExtractor takes '),
    ('roi_head.mask_head.spatial_attention', 'no', 'SAGMaskHead takes bool.'),
    ('roi_head.mask_iou_head.area_ratio', 'exact_area', "takes 'all_polygons' or 'first_polygon'."),
    ('roi_head.pasting', 'exact', "CenterMaskRoIHead takes 'sampled' or 'resized'."),
    ('roi_head.mask_head', None, 'CenterMaskRoIHead takes dict.'),
    ('num_classes', '3', 'CenterMask takes int.'),
    ('fuse_conv_bn', 'no', 'CenterMask takes bool.'),
    ('test_cfg', 'x', 'CenterMask takes dict or None.'),
]


@pytest.mark.parametrize(('key', 'value', 'words'), CASES)
def test_wrong_values(key: str, value: Any, words: str) -> None:
    config = Config(dict(model=small_model_config(changes={key: value})))
    with pytest.raises(InputError) as error:
        check_config(config)
    assert str(error.value).startswith(f"In the config None model.{key} can't be {value!r}: ")
    assert words in str(error.value)


def test_proper_values() -> None:
    for recipe in ('star', 'paper'):
        check_config(Config(dict(model=small_model_config(recipe))))


@pytest.mark.parametrize(
    ('key', 'value', 'words'),
    [
        ('backbone.arch', 'nonsense', "model.backbone.arch can't be 'nonsense': VoVNet takes '19' or "),
        ('backbone.plus_on', True, 'model.backbone.plus_on is no argument of VoVNet, which takes arch, '),
        ('bbox_head.plus_one', True, 'plus_one is no argument of CenterMaskFCOSHead; it was renamed to legacy_boxes.'),
        # MMDetection refuses this without a message.
        ('neck.num_outs', 2, 'can\'t be built: AssertionError() at "assert num_outs >= self.num_ins - st'),
    ],
)
def test_by_the_command(key: str, value: object, words: str, config: Path, outcome: Callable, tmp_path: Path) -> None:
    model = dict(small_model_config(changes={key: value}))
    config.write_text(config.read_text().replace("dict(type='OneWeight')", repr(model)))
    assert outcome('train', config, '--work-dir', tmp_path / 'run').refused(str(config), words)
