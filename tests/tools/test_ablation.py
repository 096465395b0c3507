"""tools/ablation.py"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from centermask.ablation import study as module
from centermask.engine.cli import run


@pytest.fixture
def ablation(tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable:
    """Run the command in ``tmp_path`` and return its exit code, output and errors."""

    def call(*args: str) -> tuple[int, str, str]:
        folders = ['--work-dir', str(tmp_path / 'work'), '--data', str(tmp_path / 'data')]
        try:
            code = run(lambda: tools('ablation')([*folders, *args]))
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def test_trains_then_reports(ablation: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(trainings: list, jobs: int, threads: int) -> None:
        for training in trainings:
            result = {'box AP': 10.0 + training.config.randomness.seed, 'mask AP': 5.0, 'levels': {'P3': 2}}
            training.result.write_text(json.dumps(result | {'settings': training.config.settings}))

    monkeypatch.setattr(module, 'train_all', fake)
    monkeypatch.setattr(module, 'draw', lambda study: None)
    code, output, _ = ablation('--rows', 'v1', 'v1-residual', '--seeds', '3', '4')
    assert code == 0
    assert '2 rows × 2 seeds: 0 trainings are done, 4 to do' in output
    assert 'Table 4' not in output.partition('\n| --- ')[0]
    assert '| 4 | V1 + residual, deep | 5.0 | 13.5 | V1, deep | ' in output
    assert 'Seeds: 3, 4.' in output
    assert (tmp_path / 'work' / 'ablation.md').read_text() in output
    assert (tmp_path / 'work' / 'ablation.png').stat().st_size > 10_000
    code, output, _ = ablation('--rows', 'v1', '--seeds', '3', '--report')
    assert code == 0
    assert 'trainings are done' not in output
    assert '| 4 | V1, deep | 5.0 | 13.0 |' in output


@pytest.mark.parametrize(
    'args, told',
    [
        (['--rows', 'eq3'], '--rows eq3: there is no such row'),
        (['--seeds', '-1'], "'-1' is no number from 0 on"),
        (['--seeds', 'a'], "'a' is no number from 0 on"),
        (['--jobs', '0'], "'0' is no number from 1 on"),
    ],
)
def test_bad_input(ablation: Callable, args: list[str], told: str) -> None:
    code, _, errors = ablation(*args)
    assert code == 2
    assert told in errors.splitlines()[-1]


def test_nothing_to_report(ablation: Callable, tmp_path: Path) -> None:
    code, output, errors = ablation('--report')
    assert code == 2 and not output
    assert 'holds no results of these rows and seeds' in errors
    assert not (tmp_path / 'work').exists()
    (tmp_path / 'work').touch()
    assert ablation('--report')[0] == 2
