"""What the rows change, and what they have in common."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS

from centermask.ablation.rows import ROWS, changes, choose, row_config
from centermask.ablation.training import count_levels, start_parts
from centermask.utils.errors import InputError
from centermask.tables.index import read_index

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
BASE = CONFIGS / 'centermask-lite-star_v2-19-slim_ablation.py'
BY_NAME = {row.name: row for row in ROWS}
EXTRACTOR = 'model.roi_head.mask_roi_extractor'
ATTENTION = 'model.roi_head.mask_head.spatial_attention'
SCORING = 'model.roi_head.mask_iou_head'


def test_rows_change_what_the_tables_configs_change() -> None:
    found = {row.name: changes(row, CONFIGS) for row in ROWS if not row.deep}
    assert found == {
        'fcos': {'model.roi_head': None},
        'eq1': {f'{EXTRACTOR}.assignment': 'fpn', ATTENTION: False, SCORING: None},
        'eq2': {ATTENTION: False, SCORING: None},
        'sam': {SCORING: None},
        'scoring': {},
        'p3-p7': {f'{EXTRACTOR}.featmap_strides': [8, 16, 32, 64, 128]},
        'p3-p6': {f'{EXTRACTOR}.featmap_strides': [8, 16, 32, 64]},
        'p3-p4': {f'{EXTRACTOR}.featmap_strides': [8, 16]},
    }


def test_a_residual_connection_changes_the_deep_backbone_only() -> None:
    plain, residual = (
        row_config(BY_NAME[name], BASE, CONFIGS, Path()).model.backbone for name in ('v1', 'v1-residual')
    )
    assert not plain.residual
    assert residual.get('residual', True)
    assert plain.attention == residual.attention == 'none'
    for arch, used in (('19-slim', False), (plain.arch, True)):
        with torch.device('meta'):
            backbone = MODELS.build(dict(residual, arch=arch))
        assert any(block.residual for stage in backbone.stages for block in stage.blocks) == used


def test_rows_share_data_order_and_schedule() -> None:
    """All but the model, and of the deep backbone the number of iterations, is the same."""
    configs = [row_config(row, BASE, CONFIGS, Path('start.pth')).to_dict() for row in ROWS]
    for row, config in zip(ROWS, configs, strict=True):
        differing = {key for key in config if config[key] != configs[0][key]}
        assert differing <= {'model'} | ({'train_cfg', 'param_scheduler'} if row.deep else set()), row.name
        assert config['param_scheduler'][-1]['end'] == config['train_cfg']['max_iters']
        assert (config['model']['backbone']['init_cfg'] is None) == row.deep


def _built(name: str, seed: int) -> torch.nn.Module:
    config = row_config(BY_NAME[name], BASE, CONFIGS, Path())
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model)
    start_parts(model, seed)
    return model


def test_what_rows_share_starts_with_the_same_weights() -> None:
    whole, alone, other = _built('scoring', 3), _built('fcos', 3), _built('fcos', 4)
    for name, weight in alone.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name
    assert not torch.equal(alone.bbox_head.conv_cls.weight, other.bbox_head.conv_cls.weight)
    conv = alone.backbone.stem[1].conv.weight  # ConvModule's start, not torch's default for convs
    assert conv.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    before = whole.bbox_head.conv_cls.weight.clone()
    whole.init_weights()  # what MMEngine does when a training begins
    assert torch.equal(before, whole.bbox_head.conv_cls.weight)


def test_levels_are_counted_in_training_alone() -> None:
    extractor = _built('scoring', 0).roi_head.mask_roi_extractor
    model = torch.nn.Module()
    model.roi_head = torch.nn.Module()
    model.roi_head.mask_roi_extractor = extractor
    counts = count_levels(model)
    features = [torch.zeros(1, 128, 320 // stride, 320 // stride) for stride in (8, 16, 32)]
    rois = torch.tensor([[0, 0, 0, side, side] for side in (20.0, 100.0, 200.0, 300.0)])
    for mode in (True, False):
        extractor.train(mode)
        extractor(features, rois, torch.tensor([320.0 * 320]))
    assert counts == {'P3': 2, 'P4': 1, 'P5': 1}
    assert not count_levels(torch.nn.Module())


def test_selection() -> None:
    assert choose(None) == list(ROWS)
    assert [row.name for row in choose(['sam', 'fcos'])] == ['fcos', 'sam']
    with pytest.raises(InputError, match=r'--rows nosuch: .* fcos, eq1'):
        choose(['nosuch'])


def test_the_paper_has_figures_of_every_row() -> None:
    index = {(row.table, row.number): row for row in read_index(CONFIGS).rows}
    for row in ROWS:
        assert index[row.table, row.number].config == row.config
        assert row.against is None or row.compared is not None
        if row.against and row.table != 2:
            assert index[row.table, row.compared].config == BY_NAME[row.against].config
