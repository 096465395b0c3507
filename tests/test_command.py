"""The command ``centermask``, which runs the files of tools/."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import centermask_command

REPOSITORY = Path(__file__).resolve().parents[1]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Command:
    """Run the command; return its exit code, output and errors."""

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', ['centermask', *args])
        try:
            code = centermask_command.main()
        except SystemExit as end:  # argparse
            code = end.code
        return code, *capsys.readouterr()

    return call


def test_help_has_a_line_for_each_command(command: Command) -> None:
    for args in ([], ['-h'], ['--help']):
        code, out, err = command(*args)
        assert (code, err) == (0, '')
        lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith('  '))
        assert list(lines) == list(centermask_command.COMMANDS)
        assert all('tools/' not in line and len(line) < 80 for line in lines.values())


def test_help_imports_no_torch() -> None:
    check = "import centermask_command, sys; centermask_command.main(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, '-c', check], check=True, stdout=subprocess.PIPE)


def test_unknown_command(command: Command) -> None:
    assert command('predcit') == (
        2,
        '',
        "error: centermask has no command 'predcit': try 'predict', or see centermask -h.\n",
    )


def test_runs_the_tool_under_its_own_name(command: Command, tiny_config: Path) -> None:
    code, out, _ = command('predict', '-h')
    assert code == 0 and out.startswith('usage: centermask predict ')
    code, _, err = command('predict', '--no-such-option')
    assert code == 2 and 'centermask predict: error: ' in err
    data = tiny_config.parent / 'shapes/train'
    code, out, _ = command('check', f'{data}/annotations.json', f'{data}/images')
    assert code == 0 and 'Nothing is wrong.' in out
    code, out, err = command('check', 'missing.json', '.')
    assert code == 2 and err.startswith('error: ') and 'missing.json' in err


def test_tools_are_in_the_package() -> None:
    assert centermask_command.TOOLS.resolve() == REPOSITORY / 'tools'
    assert all((REPOSITORY / 'tools' / f'{tool}.py').is_file() for tool in centermask_command.COMMANDS.values())


def test_module(tmp_path: Path) -> None:
    """``python -m centermask``."""
    done = subprocess.run([sys.executable, '-m', 'centermask', '-h'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == centermask_command.describe() + '\n', done.stderr
