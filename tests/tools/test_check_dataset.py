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
    assert code == 1 and err.count('\n') == 1 and 'would lose 1 of 17 objects (5.9%), see above, and --max-lost' in err
    assert (
        'A training would lose objects:\n    1 objects of an image or category that the file does not list: object 1'
        in out
    )
    assert check(tmp_path / 'bad.json', '--max-lost', '0.06')[0] == 0
    code, out, _ = check(tmp_path / 'bad.json', '--fix', str(tmp_path / 'good.json'))
    assert code == 0
    assert f'good.json is written with what can be used: 6 images, {len(content["annotations"]) - 1} objects' in out
    assert check(tmp_path / 'good.json')[0] == 0


def test_fix_of_boxes_alone(check: Callable, shapes: Path, tmp_path: Path) -> None:
    content = json.loads((shapes / 'annotations.json').read_text())
    for entry in content['annotations']:
        entry['segmentation'] = []
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    code, _, err = check(tmp_path / 'boxes.json', '--fix', str(tmp_path / 'fixed.json'))
    assert code == 1 and err.endswith('fixed.json: there is still nothing to train on, see above.\n')


def test_report_holds_every_finding(check: Callable, shapes: Path, tmp_path: Path) -> None:
    content = json.loads((shapes / 'annotations.json').read_text())
    for entry in content['annotations'][:5]:
        entry['category_id'] = 77
    (tmp_path / 'bad.json').write_text(json.dumps(content))
    code, out, _ = check(tmp_path / 'bad.json', '--report', str(tmp_path / 'findings.json'))
    assert code == 1 and 'object 3 and 2 more' in out and 'object 4' not in out
    report = json.loads((tmp_path / 'findings.json').read_text())
    assert (report['listed'], report['lost']) == (17, 5)
    assert [finding['where'] for finding in report['findings']] == [f'object {i}' for i in range(1, 6)]
    assert {(finding['kind'], finding['severity']) for finding in report['findings']} == {('unknown', 'loses')}


def test_boxes_as_corners(tools: Callable, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = shared / 'cases/boxes_xyxy'

    def call(tool: str, *args: object) -> tuple[int, str]:
        code = run(lambda: tools(tool)([*map(str, args)]))
        return code, ''.join(capsys.readouterr())

    code, text = call('check_dataset', data / 'train.json', data / 'images')
    assert code == 1 and '24 of 24 boxes do not fit their outlines and would as corners (x1, y1, x2, y2)' in text
    config = REPOSITORY / 'configs/demo/centermask-lite-star_v2-19-slim_shapes.py'
    code, text = call('train', config, '--data', data, '--work-dir', tmp_path)
    assert code == 1 and 'would as corners' in text and text.count('\n') == 1
    assert call('check_dataset', data / 'train.json', data / 'images', '--fix', tmp_path / 'fixed.json')[0] == 0
    entry = json.loads((tmp_path / 'fixed.json').read_text())['annotations'][0]
    assert entry['bbox'] == [102.66, 76.08, 53.18, 60.33]
    assert call('check_dataset', tmp_path / 'fixed.json', data / 'images')[0] == 0


def test_microscopy(tools: Callable, shared: Path, capsys: pytest.CaptureFixture) -> None:
    """RLE and alpha are facts, an object in 7514 that is not learned is no reason to fail, and the text is short."""
    data = shared / 'data/nuclei256'
    assert run(lambda: tools('check_dataset')([str(data / 'train.json'), str(data / 'train')])) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) < 20 and max(map(len, out.splitlines())) < 200
    assert 'Outlines: 7514 RLE\nImages: 265 RGB with alpha of 8 bits\n' in out
    assert 'max_per_img=50 leaves out 645 of 7514 objects (43 images hold more, up to 101)' in out


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['no.json'], 'The annotation file no.json does not exist'),
        (['{own}', '--config', 'no.py'], "The config no.py doesn't exist"),
        (['{own}', '--report', 'x.txt'], 'give the name of a file that ends in .json.'),
        (['{own}', '--fix', '{f}'], 'give the name of a file that ends in .json.'),
        (['{own}', '--fix', '{own}/x.json'], "can't be written to (File exists): give another one by --fix"),
    ],
)
def test_bad_input(check: Callable, shapes: Path, args: list[str], words: str, tmp_path: Path) -> None:
    paths = dict(own=shapes / 'annotations.json', f=tmp_path)
    code, _, err = check(*(arg.format(**paths) for arg in args))
    assert code == 2 and words in err and err.count('\n') == 1
