"""The index as rows of the paper's tables: read, and figures written back."""

import re
from pathlib import Path

import pytest
import yaml

from centermask.tables.index import TABLES, Index, read_index, write_figures
from centermask.utils.errors import InputError


def test_rows_in_the_papers_order(index: Index) -> None:
    expected = [(number, row) for number, table in TABLES.items() for row in range(1, table.rows + 1)]
    assert [(row.table, row.number) for row in index.rows] == expected


def test_a_row(index: Index) -> None:
    row = next(row for row in index.rows if row.table == 4 and row.number == 12)
    assert row.names == {'Backbone': 'VoVNet-99', 'Variant': 'V1 + residual + eSE (= V2)'}
    assert row.paper == {'Params (M)': 96.9, 'mask AP': 38.3, 'box AP': 43.5, 'ms (Titan Xp)': 106}
    assert row.config == 'centermask_v2-99_fpn_1x_coco'
    assert str(row) == 'table 4, row 12 (VoVNet-99, V1 + residual + eSE (= V2))'


def test_one_config_in_two_tables(index: Index) -> None:
    assert [row.table for row in index.rows if row.config == 'centermask_r50_fpn_1x_coco'] == [1, 2, 3]
    assert len(set(index.configs)) == len(index.configs)


def test_writes_figures_and_nothing_else(copied: Path) -> None:
    before = (copied / 'metafile.yml').read_text()
    write_figures(copied, 'centermask_r50_fpn_1x_coco', {'Parameters': '7', 'inference time (ms/im)': '[{"value": 8}]'})
    after = (copied / 'metafile.yml').read_text()
    changed = [
        new for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new
    ]  # the same number of lines
    assert changed == ['      Parameters: 7', '      inference time (ms/im): [{"value": 8}]']
    models = {model['Name']: model for model in yaml.safe_load(after)['Models']}
    assert models['centermask_r50_fpn_1x_coco']['Metadata']['Parameters'] == 7
    assert not list(copied.glob('.part-*'))


@pytest.mark.parametrize(
    'name, key, message',
    [
        ('nothing', 'Parameters', 'has no model nothing'),
        ('centermask_r50_fpn_1x_coco', 'Weight', 'has no Weight: add the line "Weight: not measured"'),
        # Another entry's line is not taken for this one's.
        ('panoptic-centermask-star_v2-99_fpn_3x_coco', 'Parameters', 'has no Parameters'),
    ],
)
def test_refuses_what_has_no_place(copied: Path, name: str, key: str, message: str) -> None:
    before = (copied / 'metafile.yml').read_text()
    with pytest.raises(InputError, match=re.escape(message)):
        write_figures(copied, name, {key: '1'})
    assert (copied / 'metafile.yml').read_text() == before


@pytest.mark.parametrize(
    'text, message',
    [
        (None, "can't be read"),
        ('Models: [', "can't be read"),
        ('Collections: []', "lacks the key 'Models'"),
        ('{Collections: [], Models: [{Config: a.py, Rows: [{Table: 1, Row: 1, Paper: {}}]}]}', "lacks the key 'Compo"),
        ('{Collections: [], Models: [{Config: a.py, Rows: [{Table: 6, Row: 1, Paper: {}}]}]}', 'lacks the key 6'),
    ],
)
def test_unreadable(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / 'metafile.yml').write_text(text)
    with pytest.raises(InputError, match=message):
        read_index(tmp_path)
