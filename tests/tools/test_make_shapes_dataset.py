from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'make_shapes_dataset.py'


def run(*args):
    return subprocess.run([sys.executable, TOOL, *map(str, args)], capture_output=True, text=True)


def test_says_what_it_wrote(tmp_path):
    result = run(tmp_path / 'set', '--images', 6, '--seed', 5)
    assert result.returncode == 0, result.stderr
    coco = json.loads((tmp_path / 'set' / 'annotations.json').read_text())
    assert len(coco['images']) == 6
    assert f'{tmp_path / "set"}: 6 images' in result.stdout


@pytest.mark.parametrize(('images', 'seed', 'option'), [(0, 1, '--images'), (3, -1, '--seed')])
def test_numbers_out_of_range(tmp_path, images, seed, option):
    result = run(tmp_path / 'set', '--images', images, '--seed', seed)
    assert result.returncode == 2
    assert option in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
