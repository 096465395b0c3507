"""tools/check_dataset.py, as a command and as a function."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from centermask.datasets.shapes import make_dataset
from centermask.engine.cli import run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('shapes') / 'own'
    make_dataset(folder, 6, seed=0)
    return folder


@pytest.fixture
def check(tools: Callable, shapes: Path, capsys: pytest.CaptureFixture) -> Callable:
    def call(ann_file: Path, *args: str) -> tuple[int, str, str]:
        code = run(lambda: tools('check_dataset')([str(ann_file), str(shapes / 'images'), *args]))
        return code, *capsys.readouterr()

    return call


def test_command(shapes: Path) -> None:
    command = [sys.executable, 'tools/check_dataset.py', str(shapes / 'annotations.json'), str(shapes / 'images')]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '6 images' in done.stdout and 'Levels that masks are pooled from (Eq. 2): P3 ' in done.stdout
    assert done.stdout.endswith('Nothing is wrong.\n')
    table = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    truth = json.loads((shapes / 'annotations.json').read_text())
    circles = [a for a in truth['annotations'] if a['category_id'] == 1 and not a['iscrowd']]
    assert int(table['circle'][0]) == len(circles)


def test_fix(check: Callable, shapes: Path, tmp_path: Path) -> None:
    content = json.loads((shapes / 'annotations.json').read_text())
    content['annotations'][0]['category_id'] = 77
    (tmp_path / 'bad.json').write_text(json.dumps(content))
    code, out, err = check(tmp_path / 'bad.json')
    assert code == 1 and err.count('\n') == 1 and 'a training would fail or lose objects, see above; --fix' in err
    assert (
        'A training would lose objects:\n    1 objects of an image or category that the file does not list: object 1'
        in out
    )
    code, out, _ = check(tmp_path / 'bad.json', '--fix', str(tmp_path / 'good.json'))
    assert code == 0
    assert f'good.json is written with what can be used: 6 images, {len(content["annotations"]) - 1} objects' in out
    assert check(tmp_path / 'good.json')[0] == 0


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['no.json'], 'The annotation file no.json does not exist'),
        (['{own}', '--config', 'no.py'], "The config no.py doesn't exist"),
        (['{own}', '--fix', '{f}'], 'give the name of a file that ends in .json.'),
        (['{own}', '--fix', '{own}/x.json'], "can't be written to (File exists): give another one by --fix"),
    ],
)
def test_bad_input(check: Callable, shapes: Path, args: list[str], words: str, tmp_path: Path) -> None:
    paths = dict(own=shapes / 'annotations.json', f=tmp_path)
    code, _, err = check(*(arg.format(**paths) for arg in args))
    assert code == 2 and words in err and err.count('\n') == 1
