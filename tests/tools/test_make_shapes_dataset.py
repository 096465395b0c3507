"""tools/make_shapes_dataset.py, as a command and as a function."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'make_shapes_dataset.py'


def test_the_command_prints_what_it_wrote(tmp_path: Path) -> None:
    command = [sys.executable, TOOL, tmp_path / 'set', '--images', '6', '--seed', '5']
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    coco = json.loads((tmp_path / 'set' / 'annotations.json').read_text())
    assert len(coco['images']) == 6
    assert f'{tmp_path / "set"}: 6 images' in result.stdout


@pytest.mark.parametrize(('images', 'seed', 'option'), [(0, 1, '--images'), (3, -1, '--seed')])
def test_numbers_out_of_range(
    tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, images: int, seed: int, option: str
) -> None:
    with pytest.raises(SystemExit, match='2'):
        tools('make_shapes_dataset')([str(tmp_path / 'set'), '--images', str(images), '--seed', str(seed)])
    assert f'argument {option}: ' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
