"""tools/tables.py: the paper's tables, printed, checked, measured and explained."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from centermask.engine.cli import run
from centermask.utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def main(tools: Callable[[str], Callable]) -> Callable:
    return tools('tables')


@pytest.fixture
def copied(tmp_path: Path, main: Callable, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of configs/, which the command takes for its own, and a docs/ that it writes to."""
    shutil.copytree(REPOSITORY / 'configs', tmp_path / 'configs')
    (tmp_path / 'docs').mkdir()
    monkeypatch.setitem(main.__globals__, 'REPOSITORY', tmp_path)
    monkeypatch.setitem(main.__globals__, 'CONFIGS', tmp_path / 'configs')
    return tmp_path


def test_prints_tables(main: Callable, capsys: pytest.CaptureFixture) -> None:
    """In their order, each once, whatever order they are named in."""
    main(['2', '1', '2'])
    text = capsys.readouterr().out
    assert [line.partition(':')[0] for line in text.splitlines() if line.startswith('**')] == [
        '**Table 1**',
        '**Table 2**',
    ]
    main(['all'])
    assert capsys.readouterr().out.count('**Table ') == 5


def test_prints_csv(main: Callable, capsys: pytest.CaptureFixture) -> None:
    main(['4', '--csv'])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 12
    assert (rows[8]['paper: Params (M)'], rows[8]['ours: params (M)']) == ('83.6', '87.6')


def test_tables_of_csv_are_apart(main: Callable, capsys: pytest.CaptureFixture) -> None:
    main(['all', '--csv'])
    tables = capsys.readouterr().out.split('\n\n')
    assert [len(list(csv.DictReader(table.splitlines()))) for table in tables] == [5, 4, 14, 12, 18]


@pytest.mark.parametrize(
    'name', [str(REPOSITORY / 'configs/paper/centermask_v2-39_fpn_1x_coco.py'), 'centermask_v2-39_fpn_1x_coco']
)
def test_explains(name: str, main: Callable, capsys: pytest.CaptureFixture) -> None:
    main(['explain', name])
    *_, of_table_4 = capsys.readouterr().out.split('\n\n')
    assert of_table_4.splitlines() == [
        'Table 4, from VoVNet to VoVNetV2: row 4, VoVNet-39, V1 + residual + eSE (= V2)',
        "model.backbone.attention: 'ese' (first row: 'none')",
        'model.backbone.residual: True (first row: False)',
    ]


def test_measures(main: Callable, copied: Path, capsys: pytest.CaptureFixture) -> None:
    """What was spoilt is right again, and nothing else is changed; a line for each config says how long it takes."""
    index = copied / 'configs/metafile.yml'
    right = index.read_text()
    name = 'centermask-lite_mobilenetv2_fpn_4x_coco'
    before, entry, after = right.partition(f'  - Name: {name}\n')
    index.write_text(before + entry + after.replace('      Parameters: 3', '      Parameters: 4', 1))
    assert index.read_text() != right
    main(['all', '--measure', 'counts', '--only', f'configs/{name}.py', 'centermask-lite_v2-19_fpn_4x_coco'])
    assert index.read_text() == right
    first, second, last = capsys.readouterr().out.splitlines()
    assert last == 'configs/metafile.yml has the figures'
    assert first.startswith(f'1/2 {name}: 3.64 M parameters, 35.9 GFLOPs; ') and first.endswith(' s left')
    assert second.startswith('2/2 centermask-lite_v2-19_fpn_4x_coco: 20.12 M') and second.endswith('; 0 s left')


def test_measures_latency(
    main: Callable, copied: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed() -> list[dict[str, str]]:
        main(['1', '--csv'])
        return list(csv.DictReader(capsys.readouterr().out.splitlines()))

    _, *others = printed()
    monkeypatch.setitem(main.__globals__, 'latency', lambda config, device: (4321.4, (800, 1066)))
    main(['1', '--measure', 'latency', '--only', 'fcos_r50_fpn_1x_coco'])
    capsys.readouterr()
    first, *rest = printed()
    assert first['ours: ms'].startswith('4321 (')
    assert rest == others


def test_writes_the_page(main: Callable, copied: Path) -> None:
    main(['all', '--docs'])
    assert (copied / 'docs/paper_tables.md').read_text() == (REPOSITORY / 'docs/paper_tables.md').read_text()


def _run(script: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY / 'projects')}
    return subprocess.run([sys.executable, script, *words], env=environment, capture_output=True, text=True)


def test_exit_codes(main: Callable, tmp_path: Path) -> None:
    """The check passes; with a config taken away it fails, in one sentence."""
    assert run(lambda: main(['2', '--check'])) == 0
    shutil.copytree(REPOSITORY / 'configs', tmp_path / 'configs')
    (tmp_path / 'tools').mkdir()
    script = Path(shutil.copy(REPOSITORY / 'tools/tables.py', tmp_path / 'tools'))
    (tmp_path / 'configs/paper/centermask_r50-p3-p4_fpn_1x_coco.py').unlink()
    failed = _run(script, '2', '--check')
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(
        'error: The tables are not in order: table 2, row 4 (P3-P4) has no'
    )
    assert 'Traceback' not in failed.stderr


@pytest.mark.parametrize(
    'words, message',
    [
        (['6'], "There is no table '6'"),
        (['1', 'explain'], "There is no table 'explain'"),
        (['explain'], 'explain takes one config and got 0'),
        (['explain', 'a.py', 'b.py'], 'explain takes one config and got 2'),
        (['explain', 'nothing.py'], "The config nothing.py doesn't exist"),
        (['1', '--measure', 'counts', '--only', 'nothing'], '--only: nothing is no config of these tables'),
    ],
)
def test_bad_words(main: Callable, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(words)


@pytest.mark.parametrize(
    'words, message',
    [
        ([], 'required'),
        (['1', '--only', 'a'], '--only goes with --measure'),
        (['1', '--docs'], '--docs writes all tables'),
        (['explain', 'a.py', '--csv'], 'explain CONFIG takes no option'),
        (['1', '--csv', '--check'], 'not allowed with'),
    ],
)
def test_options_that_dont_go_together(
    main: Callable, words: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
