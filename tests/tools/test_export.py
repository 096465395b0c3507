"""tools/export.py, its file in tools/predict.py and tools/test.py, and the example that runs it without torch."""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from centermask.engine.cli import run
from centermask.export.runtime import ExportedModel
from centermask.mask_pasting import paste

for package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino'):
    pytest.importorskip(package)

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def exported(
    tools: Callable, tiny_config: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The file, and what the command said."""
    out, said = tmp_path_factory.mktemp('export') / 'tiny.onnx', io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run(lambda: tools('export')([str(tiny_config), str(tiny_run / 'iter_2.pth'), '--out', str(out)])) == 0
    return out, said.getvalue()


@pytest.fixture
def call(tools: Callable, capsys: pytest.CaptureFixture) -> Callable:
    def run_tool(name: str, *argv: str | Path) -> tuple[int, str]:
        code = run(lambda: tools(name)([str(word) for word in argv]))
        return code, capsys.readouterr().err.strip().rpartition('\n')[2]

    return run_tool


@pytest.mark.slow
def test_says_that_it_is_checked(exported: tuple[Path, str]) -> None:
    file, said = exported
    for runtime in ('onnxruntime', 'openvino'):
        (count,) = re.findall(rf'{runtime} on 3 pictures: (\d+) detections: boxes within', said)
        assert int(count) > 0
    assert 'differs' not in said and [path.name for path in file.parent.iterdir()] == ['tiny.onnx']


@pytest.mark.slow
def test_is_predicted_with_like_a_checkpoint(
    exported: tuple[Path, str], tiny_config: Path, tiny_run: Path, call: Callable, tmp_path: Path
) -> None:
    images = tiny_config.parent / 'shapes/val/images'
    results = []
    for name, file in (('eager', tiny_run / 'iter_2.pth'), ('file', exported[0])):
        assert call('predict', images, tiny_config, file, '--device', 'cpu', '--out-dir', tmp_path / name)[0] == 0
        results.append(json.loads((tmp_path / f'{name}/predictions.segm.json').read_text()))
        assert len(list((tmp_path / f'{name}/vis').iterdir())) == 3
    eager, found = results
    assert len(found) == len(eager) > 0
    for key in ('category_name', 'file_name'):
        assert sorted(mask[key] for mask in found) == sorted(mask[key] for mask in eager)
    scores = [sorted(mask['score'] for mask in of_one) for of_one in (eager, found)]
    np.testing.assert_allclose(*scores, atol=1e-4)


@pytest.mark.slow
def test_is_tested_like_a_checkpoint(
    exported: tuple[Path, str], tiny_config: Path, tiny_run: Path, call: Callable, tmp_path: Path
) -> None:
    figures = []
    for name, file in (('eager', tiny_run / 'iter_2.pth'), ('file', exported[0])):
        assert call('test', tiny_config, file, '--work-dir', tmp_path / name)[0] == 0
        (log,) = (tmp_path / name).glob('*/2*.json')
        figures.append(json.loads(log.read_text().splitlines()[-1]))
    for key in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert abs(figures[0][key] - figures[1][key]) <= 0.001


EXAMPLE = REPOSITORY / 'examples/onnx_detect.py'


def test_example_is_short_and_without_torch() -> None:
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 60
    imported = {line.split()[1] for line in lines if line.startswith(('import ', 'from '))}
    assert imported == {'json', 'sys', 'numpy', 'onnxruntime', 'PIL'}


def test_example_without_arguments_says_how_it_is_used() -> None:
    done = subprocess.run([sys.executable, EXAMPLE, 'a.onnx'], capture_output=True, text=True)
    assert done.returncode == 1 and 'MODEL.onnx PICTURE OUT.png [LEAST_SCORE]' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.slow
def test_example_draws(exported: tuple[Path, str], tiny_config: Path, tmp_path: Path) -> None:
    """The file's boxes, and the best one's mask, of a picture that is resized and padded."""
    before = Image.open(next((tiny_config.parent / 'shapes/val/images').iterdir())).convert('RGB').resize((1000, 520))
    before.save(tmp_path / 'picture.png')
    small = before.resize((160, 83), Image.Resampling.BILINEAR)  # the config's scale is 160×160
    model = ExportedModel(exported[0])
    pixels = np.asarray(small, np.float32)[:, :, ::-1]
    images = ((pixels - model.metadata.mean) / model.metadata.std).transpose(2, 0, 1)[None].astype(np.float32)
    (found,) = model(np.pad(images, ((0, 0), (0, 0), (0, 13), (0, 0))), np.array([[83, 160]]))
    boxes = (found.boxes * np.tile([1000 / 160, 520 / 83], 2)).astype(np.float32)

    command = [sys.executable, EXAMPLE, exported[0], tmp_path / 'picture.png', tmp_path / 'out.png', 0]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = [[float(number) for number in line.split()[-4:]] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(printed, boxes, atol=0.11)

    changed = (np.asarray(before) != np.asarray(Image.open(tmp_path / 'out.png'))).any(2)
    expected = paste(found.masks, boxes, (520, 1000), model.metadata.mask_threshold, 'sampled').any(0)
    assert expected.sum() > 300
    for left, top, right, bottom in boxes.astype(int):
        expected[[top, bottom], left : right + 1] = True
        expected[top : bottom + 1, [left, right]] = True
    for left, top in boxes[:, :2].astype(int):
        expected[top : top + 20, left : left + 150] = changed[top : top + 20, left : left + 150]  # the text
    assert (changed == expected).all()


@pytest.mark.slow
def test_example_refuses(exported: tuple[Path, str], tmp_path: Path) -> None:
    """Files with other outputs than it draws, and files that don't say what they need."""
    onnx = pytest.importorskip('onnx')
    for metadata in ({}, {**ExportedModel(exported[0]).metadata.strings(), 'full_masks': 'true'}):
        model = onnx.load(exported[0])
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, tmp_path / 'model.onnx')
        command = [sys.executable, str(EXAMPLE), str(tmp_path / 'model.onnx'), 'a.png', 'b.png']
        done = subprocess.run(command, capture_output=True, text=True)
        words = f'{tmp_path}/model.onnx has full masks, or no metadata: export it by tools/export.py'
        assert done.returncode == 1 and done.stderr.startswith(words) and done.stderr.count('\n') == 1


@pytest.mark.slow
def test_int8_says_what_it_costs(
    exported: tuple[Path, str], tiny_config: Path, tiny_run: Path, call: Callable, tmp_path: Path
) -> None:
    pytest.importorskip('nncf')
    out = tmp_path / 'int8.xml'
    command = ['tools/export.py', tiny_config, tiny_run / 'iter_2.pth', '--format', 'openvino', '--int8', '--out', out]
    done = subprocess.run([sys.executable, *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'quantising by 4 pictures' in done.stdout
    for key in ('bbox_mAP', 'segm_mAP'):
        assert re.search(rf'{key}: 0\.\d+ by the checkpoint, 0\.\d+ by the file, [+-]0\.\d+ lost', done.stdout)
    assert ExportedModel(out).metadata.precision == 'int8'
    assert out.with_suffix('.bin').stat().st_size < 0.4 * exported[0].stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize('format_', ['onnx', 'openvino'])
def test_half_says_what_it_costs(
    format_: str,
    exported: tuple[Path, str],
    tiny_config: Path,
    tiny_run: Path,
    tools: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
) -> None:
    onnx, main = pytest.importorskip('onnx'), tools('export')
    monkeypatch.setitem(main.__globals__, 'to_onnx', lambda model, metadata: onnx.load(exported[0]))  # takes long
    out = tmp_path / ('half.onnx' if format_ == 'onnx' else 'half.xml')
    command = [tiny_config, tiny_run / 'iter_2.pth', '--format', format_, '--half', '--out', out]
    assert run(lambda: main([str(word) for word in command])) == 0
    said = capsys.readouterr().out
    for key in ('bbox_mAP', 'segm_mAP'):
        assert re.search(rf'{key}: 0\.\d+ by the checkpoint, 0\.\d+ by the file, [+-]0\.\d+ lost', said)
    assert ExportedModel(out).metadata.precision == 'half'
    weights = out if format_ == 'onnx' else out.with_suffix('.bin')
    for file in {out, weights}:
        assert f'{file} is written, {file.stat().st_size / 1e6:.1f} MB\n' in said
    assert weights.stat().st_size < 0.6 * exported[0].stat().st_size


BAD = [
    ('export', '{config} {checkpoint} --out a.xml', '--out a.xml: the name of such a file ends in .onnx.'),
    ('export', '{config} no.pth --out a.onnx', "The checkpoint no.pth doesn't exist"),
    ('export', '{config} {checkpoint} --out a.onnx --calibration x', '--calibration is for --int8'),
    ('test', '{config} no.onnx', "The checkpoint no.onnx doesn't exist"),
    ('test', '{config} {bad} --tta', '--tta: an exported file looks at an image as it is'),
    ('test', '{config} {bad}', 'bad.onnx is damaged or no model: export the checkpoint again by tools/export.py.'),
    ('test', '{config} {bad} --cfg-options model.test_cfg.score_thr=0.1', 'model.test_cfg.score_thr: an exported file'),
    ('predict', '{images} {config} {bad} --device cpu --out-dir {tmp}/out', 'bad.onnx is damaged or no model'),
]


@pytest.mark.parametrize(('tool', 'argv', 'words'), BAD, ids=[f'{tool} {argv[-24:]}' for tool, argv, _ in BAD])
def test_bad_input(
    tool: str, argv: str, words: str, call: Callable, tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / 'bad.onnx').write_bytes(b'no model')
    places = dict(
        config=tiny_config,
        checkpoint=tiny_run / 'iter_2.pth',
        bad=tmp_path / 'bad.onnx',
        images=tiny_config.parent / 'shapes/val/images',
        tmp=tmp_path,
    )
    work_dir = ['--work-dir', str(tmp_path / 'run')] if tool == 'test' else []
    code, last = call(tool, *argv.format(**places).split(), *work_dir)
    assert code == 2 and last.startswith('error: ') and words in last
