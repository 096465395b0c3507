"""tools/tables.py: the paper's tables, printed, checked and measured."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from centermask.benchmark.metafile import LATENCY, TABLES, read_metafile, write_figures
from centermask.utils.errors import InputError, RunError

REPOSITORY = Path(__file__).resolve().parents[2]
METAFILE = Path('configs/metafile.yml')
NAME = 'centermask_mobilenetv2_fpn_1x_coco'  # in Table 3


@pytest.fixture(scope='module')
def main(tools: Callable[[str], Callable]) -> Callable:
    return tools('tables')


@pytest.fixture
def copied(tmp_path: Path, main: Callable, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the command work on a copy of configs/, and a docs/ that it writes to."""
    shutil.copytree(REPOSITORY / 'configs', tmp_path / 'configs')
    (tmp_path / 'docs').mkdir()
    shutil.copy(REPOSITORY / 'docs/model_zoo.md', tmp_path / 'docs')
    monkeypatch.setitem(main.__globals__, 'REPOSITORY', tmp_path)
    return tmp_path


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_prints_tables(main: Callable, capsys: pytest.CaptureFixture) -> None:
    """In their order, each once, whatever order they are named in."""
    main(['2', '1', '2'])
    text = capsys.readouterr().out
    assert [line.partition(':')[0] for line in text.splitlines() if line.startswith('**')] == [
        '**Table 1**',
        '**Table 2**',
    ]


def test_both_forms_hold_the_same(main: Callable, capsys: pytest.CaptureFixture) -> None:
    main(['--csv'])
    tables = [list(csv.reader(table.splitlines())) for table in capsys.readouterr().out.split('\n\n')]
    assert [len(table) - 1 for table in tables] == [table.rows for table in TABLES.values()]
    for number, (head, *body) in enumerate(tables, 1):
        main([str(number)])
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
        cells = [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines]
        assert cells[0] == head
        shown = [[cell.replace('\\*', '*').strip('`') for cell in row] for row in cells[2:]]
        assert shown == [[cell or '–' for cell in row] for row in body]  # noqa: RUF001


def test_a_row(main: Callable, capsys: pytest.CaptureFixture) -> None:
    main(['4', '--csv'])
    row = list(csv.DictReader(capsys.readouterr().out.splitlines()))[8]
    assert (row['Backbone'], row['Variant'], row['config']) == ('VoVNet-99', 'V1', 'centermask_v1-99_fpn_1x_coco')
    assert (row['paper: Params (M)'], row['ours: params (M)'], row['ours: mask AP']) == ('83.6', '87.6', 'not measured')


def test_writes_the_page(main: Callable, copied: Path) -> None:
    """docs/paper_tables.md and the table in docs/model_zoo.md are in step with the metafile."""
    main(['--docs'])
    for name in ('paper_tables.md', 'model_zoo.md'):
        assert (copied / 'docs' / name).read_text() == (REPOSITORY / 'docs' / name).read_text()
    zoo = (copied / 'docs/model_zoo.md').read_text()
    assert zoo.count('\n| `') == 36


def test_check(main: Callable, capsys: pytest.CaptureFixture) -> None:
    main(['--check'])
    summary, *known = capsys.readouterr().out.splitlines()
    assert summary == '53 rows are in order, 4 differ from the paper for a reason'
    assert known[0].startswith('table 3, row 13 (VoVNetV1-99): 87.6 M parameters, the paper has 83.6 M; ')


@pytest.mark.parametrize(
    'table, old, new, message',
    [
        ('2', 'Row: 4\n        Levels: P3-P4\n', 'Row: 3\n        Levels: P3-P4\n', 'the rows are not 1 to'),
        ('2', 'Config: configs/paper/centermask_r50-p3-p4_', 'Config: configs/gone_', 'row 4 (P3-P4) has no config'),
        ('2', 'Parameters: 51229134', 'Parameters: 7', 'parameters, the metafile has 7'),
        ('4', '        Differs: ', '        Ignored: ', '83.6 M; the metafile has no reason'),
    ],
)
def test_check_fails(table: str, old: str, new: str, message: str, main: Callable, copied: Path) -> None:
    _replace(copied / METAFILE, old, new)
    with pytest.raises(RunError) as error:
        main([table, '--check'])
    assert message in str(error.value)


def test_measures_counts(main: Callable, copied: Path, capsys: pytest.CaptureFixture) -> None:
    """Spoilt figures are right again, and nothing else is changed."""
    right = (copied / METAFILE).read_text()
    name = 'centermask-lite_mobilenetv2_fpn_4x_coco'
    write_figures(copied / METAFILE, name, dict(Parameters='7', FLOPs='8'))
    assert (copied / METAFILE).read_text() != right
    main(['--measure', 'counts', '--only', f'configs/{name}.py'])
    assert (copied / METAFILE).read_text() == right
    line, last = capsys.readouterr().out.splitlines()
    assert line == f'1/1 {name}: 3.64 M parameters, 35.9 GFLOPs; 0 s left'
    assert last == 'configs/metafile.yml has the figures'


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    ['centermask-star_v2-39-dcn_fpn_3x_coco', 'yolact-550_r50_coco'],
)
def test_counts_of_other_models(name: str, main: Callable, copied: Path) -> None:
    right = (copied / METAFILE).read_text()
    main(['--measure', 'counts', '--only', name])
    assert (copied / METAFILE).read_text() == right


def test_measures_latency(main: Callable, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main.__globals__, 'latency', lambda config, settings: (4321.4, (800, 1066)))
    main(['1', '--measure', 'latency', '--only', 'fcos_r50_fpn_1x_coco'])
    row, *_ = read_metafile(copied / METAFILE)[0]
    assert row.measured[LATENCY][0]['value'] == 4321


def test_a_metafile_without_a_key(tmp_path: Path) -> None:
    (tmp_path / 'metafile.yml').write_text('Collections: []')
    with pytest.raises(InputError, match="can't be read, KeyError: 'Models'"):
        read_metafile(tmp_path / 'metafile.yml')


@pytest.mark.parametrize(
    'words, message',
    [
        (['6'], "There is no table '6'"),
        (['1', '--measure', 'counts', '--only', 'nothing'], '--only: nothing is no config of these tables'),
    ],
)
def test_bad_words(main: Callable, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(words)


@pytest.mark.parametrize('words', [['1', '--only', 'a'], ['1', '--docs'], ['1', '--csv', '--check']])
def test_options_that_exclude_each_other(main: Callable, words: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
