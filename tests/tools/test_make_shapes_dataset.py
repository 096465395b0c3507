"""tools/make_shapes_dataset.py, as a command and as a function."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from centermask.engine.cli import run

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
    main = tools('make_shapes_dataset')
    assert run(lambda: main([str(tmp_path / 'set'), '--images', str(images), '--seed', str(seed)])) == 2
    message = capsys.readouterr().err.strip()
    assert option in message and '\n' not in message
    assert not list(tmp_path.iterdir())
