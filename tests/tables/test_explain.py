"""What a config is: its chain of files and its differences to the first row of its table, line for line."""

import os
from pathlib import Path

import pytest
from mmengine.config import Config

from centermask.tables.explain import differences, explain
from centermask.tables.index import Index
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def _explain(name: str, index: Index) -> list[list[str]]:
    """The lines of the chain, then of each table."""
    return [part.splitlines() for part in explain(CONFIGS / f'{name}.py', CONFIGS, index.rows).split('\n\n')]


def test_chain(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """From where one stands, each file below what names it."""
    monkeypatch.chdir(CONFIGS.parent)
    chain, _ = _explain('centermask-lite_v2-19_fpn_4x_coco', index)
    assert chain == [
        'configs/centermask-lite_v2-19_fpn_4x_coco.py',
        '  configs/_base_/models/paper_v2-19.py',
        '    configs/_base_/models/centermask.py',
        '      configs/_base_/models/centermask_star.py',
        '  configs/_base_/models/lite.py',
        '  configs/_base_/datasets/coco_paper_lite.py',
        '    configs/_base_/datasets/coco_paper.py',
        '      configs/_base_/datasets/coco.py',
        '  configs/_base_/schedules/paper_4x.py',
        '    configs/_base_/schedules/paper.py',
        '      configs/_base_/schedules/sgd.py',
        '  configs/_base_/default_runtime.py',
    ]


def test_chain_through_another_package(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS)
    chain, _ = _explain('yolact-550_r50_coco', index)
    assert chain == [
        'yolact-550_r50_coco.py',
        '  mmdet::yolact/yolact_r50_1xb8-55e_coco.py',
        '    mmdet::_base_/datasets/coco_instance.py',
        '    mmdet::_base_/default_runtime.py',
    ]


def test_table_2(index: Index) -> None:
    assert _explain('centermask_r50-p3-p4_fpn_1x_coco', index)[1:] == [
        [
            'Table 2, pyramid levels that RoIs are pooled from, ResNet-50: row 4, P3-P4',
            'model.roi_head.mask_roi_extractor.featmap_strides: [8, 16] (first row: [8, 16, 32, 64, 128])',
        ]
    ]


def test_a_config_of_three_tables(index: Index) -> None:
    _, of_table_1, of_table_2, of_table_3 = _explain('centermask_r50_fpn_1x_coco', index)
    assert "model.roi_head.mask_head.type: 'SAGMaskHead' (first row: not set)" in of_table_1
    assert of_table_2[0].endswith('row 3, P3-P5')
    assert of_table_3 == [
        'Table 3, backbones: row 4, ResNet-50',
        "model.backbone.type: 'ResNet' (first row: 'MobileNetV2Features')",
        'model.backbone.depth: 50 (first row: not set)',
        'model.backbone.num_stages: 4 (first row: not set)',
        'model.backbone.out_indices: (1, 2, 3) (first row: (2, 4, 6))',
        'model.backbone.frozen_stages: 1 (first row: -1)',
        "model.backbone.style: 'caffe' (first row: not set)",
        "model.backbone.init_cfg.checkpoint: 'open-mmlab://detectron2/resnet50_caffe' (first row: "
        "'https://dl.dropbox.com/s/yduxbc13s3ip6qn/mobilenet_v2_detectron2.pth')",
        'model.neck.in_channels: [512, 1024, 2048] (first row: [32, 96, 320])',
    ]


def test_the_first_row(index: Index) -> None:
    assert _explain('fcos_r50_fpn_1x_coco', index)[1][1:] == ['the first row of its table']


def test_of_no_table(index: Index) -> None:
    assert _explain('centermask-star_v2-39_fpn_3x_coco', index)[1:] == [
        ["It stands in none of the paper's tables, so there is no first row to compare it with."]
    ]


def test_a_copy_is_no_row(index: Index, tmp_path: Path) -> None:
    """It is the file that a row names which stands in the table, also by another path, not any file of that name."""
    link = tmp_path / 'link.py'
    link.symlink_to(CONFIGS / 'paper/fcos_r50_fpn_1x_coco.py')
    text = (CONFIGS / 'paper/fcos_r50_fpn_1x_coco.py').read_text()
    copy = tmp_path / 'fcos_r50_fpn_1x_coco.py'
    copy.write_text(text.replace("'./", f"'{CONFIGS}/"))
    assert 'none of the paper' in explain(copy, CONFIGS, index.rows)
    assert os.path.relpath(CONFIGS) in explain(copy, CONFIGS, index.rows)


@pytest.mark.parametrize('name', ['nothing', '.', 'metafile.yml', 'broken.py'])
def test_bad_config(index: Index, tmp_path: Path, name: str) -> None:
    (tmp_path / 'metafile.yml').write_text('[')
    (tmp_path / 'broken.py').write_text('model = (')
    with pytest.raises(InputError, match='config'):
        explain(tmp_path / name, CONFIGS, index.rows)


def _model(**vovnet: object) -> Config:
    return Config(dict(model=dict(backbone={'type': 'VoVNet', 'arch': '39', **vovnet})))


@pytest.mark.parametrize(
    'ours, first, lines',
    [
        ({}, {}, []),
        # What one leaves to the class is the class's default.
        ({}, {'attention': None}, ["model.backbone.attention: 'ese' (first row: None)"]),
        ({'attention': None}, {}, ["model.backbone.attention: None (first row: 'ese')"]),
        ({'attention': 'ese'}, {}, []),
        ({'arch': '57'}, {}, ["model.backbone.arch: '57' (first row: '39')"]),
        ({'init_cfg': None}, {}, []),
        (
            {'norm_cfg': dict(type='BN', eps=0)},
            {'norm_cfg': dict(type='BN')},
            ['model.backbone.norm_cfg.eps: 0 (first row: 1e-05)'],
        ),
        # A part that only this config has is told with its settings; one that only the other has, by its type.
        (
            {'norm_cfg': dict(type='BN', eps=0)},
            {},
            [
                "model.backbone.norm_cfg.type: 'BN' (first row: not set)",
                'model.backbone.norm_cfg.eps: 0 (first row: not set)',
            ],
        ),
        ({}, {'norm_cfg': dict(type='BN', eps=0)}, ['model.backbone.norm_cfg: None (first row: BN(...))']),
        (
            {'dcn_stages': (True,)},
            {'dcn_stages': [dict(type='A')]},
            ['model.backbone.dcn_stages: (True,) (first row: [...])'],
        ),
        # Dicts in lists are entered, also within other lists.
        (
            {'out_indices': [[dict(type='A'), dict(type='B')]]},
            {'out_indices': [[dict(type='A'), dict(type='C')]]},
            ["model.backbone.out_indices.0.1.type: 'B' (first row: 'C')"],
        ),
    ],
)
def test_differences(ours: dict, first: dict, lines: list[str]) -> None:
    found = differences(_model(**ours), _model(**first))
    assert [f'{key}: {value!r} (first row: {other!r})' for key, value, other in found] == lines


def test_parts_of_configs_are_left_out() -> None:
    """Variables that a config is put together from; and the test's data where they are the validation's."""
    data = dict(batch_size=1)
    ours = Config(dict(warm_up=1, val_dataloader=data, test_dataloader=data))
    assert list(
        differences(ours, Config(dict(warm_up=2, val_dataloader=dict(batch_size=2), test_dataloader=data)))
    ) == [('val_dataloader.batch_size', 1, 2)]
    same = Config(dict(val_dataloader=dict(batch_size=3), test_dataloader=dict(batch_size=3)))
    assert list(differences(ours, same)) == [('val_dataloader.batch_size', 1, 3)]
    other_test = Config(dict(val_dataloader=data, test_dataloader=dict(batch_size=3)))
    assert list(differences(ours, other_test)) == [('test_dataloader.batch_size', 1, 3)]
