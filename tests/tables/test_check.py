"""The check of the tables: it passes as things are, and fails when anything is taken away."""

from pathlib import Path

import pytest

from centermask.tables.check import check
from centermask.tables.index import TABLES, Index, read_index
from centermask.utils.errors import RunError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'

# Where Table 3 has MobileNetV2, whose model is the fastest to build.
NAME = 'centermask_mobilenetv2_fpn_1x_coco'


def test_passes(index: Index) -> None:
    summary, *known = check(CONFIGS, index.rows, TABLES).splitlines()
    assert summary == (
        '53 rows, 51 with a config, 2 with figures of the literature; 22 counts of parameters within 0.1 M of the '
        'paper, 4 known to differ'
    )
    reason = (
        "the paper's count is that of blocks 1, 3, 8, 3; the config builds the released 1, 3, 9, 3, which give V2-99 "
        'its 96.9 M'
    )
    assert known == [
        f'table 3, row 13 (VoVNetV1-99): 87.6 M, the paper says 83.6 M; {reason}',
        f'table 4, row 9 (VoVNet-99, V1): 87.6 M, the paper says 83.6 M; {reason}',
        f'table 4, row 10 (VoVNet-99, V1 + residual): 87.6 M, the paper says 83.6 M; {reason}',
        f'table 4, row 11 (VoVNet-99, V1 + residual + SE): 92.3 M, the paper says 88.0 M; {reason}',
    ]


def _only(index: Index) -> list:
    return [row for row in index.rows if row.config == NAME]


def _faults(configs: Path, rows: list, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the check of a Table 3 that has one row says."""
    monkeypatch.setitem(TABLES, 3, TABLES[3]._replace(rows=1))
    with pytest.raises(RunError) as error:
        check(configs, rows, [3])
    return str(error.value)


def test_a_row_is_missing(index: Index) -> None:
    rows = [row for row in index.rows if row.table == 1 and row.number < 3]
    with pytest.raises(RunError) as error:
        check(CONFIGS, rows, [1])
    assert str(error.value) == (
        'The tables are not in order: table 1 has no row 3 in metafile.yml; table 1 has no row 4 in metafile.yml; '
        'table 1 has no row 5 in metafile.yml.'
    )


def test_a_row_without_a_config_is_none_of_the_literatures(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row._replace(config=None) for row in _only(index)]
    assert 'table 3, row 1 (MobileNetV2) has no config' in _faults(CONFIGS, rows, monkeypatch)


def test_a_row_is_there_twice(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 'table 3 has row 1 twice' in _faults(CONFIGS, _only(index) * 2, monkeypatch)


def test_a_config_is_missing(index: Index, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied / f'{NAME}.py').unlink()
    faults = _faults(copied, _only(index), monkeypatch)
    assert 'table 3, row 1 (MobileNetV2) has no config: ' in faults
    assert "doesn't exist" in faults


def test_a_config_is_broken(index: Index, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (copied / f'{NAME}.py').open('a') as file:
        file.write("model = dict(neck=dict(type='Nothing'))\n")
    faults = _faults(copied, _only(index), monkeypatch)
    assert 'table 3, row 1 (MobileNetV2) has no config: ' in faults
    assert 'Nothing' in faults


def test_the_model_has_another_count(index: Index, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the paper's nor the index's."""
    with (copied / f'{NAME}.py').open('a') as file:
        file.write('model = dict(num_classes=200)\n')
    faults = _faults(copied, _only(index), monkeypatch)
    assert 'and metafile.yml says 287' in faults
    assert 'M parameters and the paper says 28.7 M' in faults


def test_a_count_is_taken_out_of_the_index(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = copied / 'metafile.yml'
    index.write_text(index.read_text().replace('      Parameters: 287', '      Parameters: 387'))
    faults = _faults(copied, _only(read_index(copied)), monkeypatch)
    assert 'and metafile.yml says 387' in faults


def test_the_papers_figure_is_taken_out(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = _only(index)
    paper = {name: value for name, value in row.paper.items() if name != 'Params (M)'}
    faults = _faults(CONFIGS, [row._replace(paper=paper)], monkeypatch)
    assert "table 3, row 1 (MobileNetV2) lacks the paper's Params (M) in metafile.yml" in faults


def test_an_exception_without_its_reason(index: Index) -> None:
    rows = [row._replace(differs=None) if row.table == 4 else row for row in index.rows]
    with pytest.raises(RunError) as error:
        check(CONFIGS, rows, [4])
    assert 'row 9 (VoVNet-99, V1) has 87.60 M parameters and the paper says 83.6 M; table 4, row 10' in str(error.value)


def test_an_unneeded_exception(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = _only(index)
    faults = _faults(CONFIGS, [row._replace(differs='it does')], monkeypatch)
    assert faults == (
        'The tables are not in order: table 3, row 1 (MobileNetV2) agrees with the paper and metafile.yml says that it '
        'differs.'
    )
