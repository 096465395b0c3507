"""tools/export.py, its file in tools/predict.py and tools/test.py, and the example that runs it without torch."""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

import centermask
from centermask.engine.cli import run
from centermask.export.runtime import ExportedModel
from centermask.mask_pasting import paste
from centermask.utils.errors import RunError

for package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino'):
    pytest.importorskip(package)

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def exported(
    tools: Callable, tiny_config: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A file, and what the command printed."""
    out, printed = tmp_path_factory.mktemp('export') / 'float32.onnx', io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run(lambda: tools('export')([str(tiny_config), str(tiny_run / 'iter_2.pth'), '--out', str(out)])) == 0
    return out, printed.getvalue()


@pytest.fixture
def call(tools: Callable, capsys: pytest.CaptureFixture) -> Callable:
    """``call(tool, *arguments)`` returns the exit code and the last line on stderr."""

    def run_tool(name: str, *argv: str | Path) -> tuple[int, str]:
        code = run(lambda: tools(name)([str(word) for word in argv]))
        return code, capsys.readouterr().err.strip().rpartition('\n')[2]

    return run_tool


@pytest.mark.slow
def test_prints_the_comparison(exported: tuple[Path, str]) -> None:
    file, printed = exported
    for runtime in ('onnxruntime', 'openvino'):
        ((agreeing, total),) = re.findall(rf'{runtime} on 3 images: (\d+) of (\d+) detections agree', printed)
        assert int(agreeing) >= 0.95 * int(total) > 0
    assert [path.name for path in file.parent.iterdir()] == ['float32.onnx']


@pytest.mark.slow
def test_a_file_that_disagrees_is_not_written(
    exported: tuple[Path, str], tiny_config: Path, tiny_run: Path, call: Callable, tools: Callable, tmp_path: Path
) -> None:
    """It is of another checkpoint here."""
    onnx, main = pytest.importorskip('onnx'), tools('export')
    other = onnx.load(exported[0])
    for weight in other.graph.initializer:
        if weight.name.endswith('conv_reg.weight'):
            weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 0.01, weight.name))
    command = [str(tiny_config), str(tiny_run / 'iter_2.pth'), '--out', str(tmp_path / 'out/a.onnx')]
    with (
        patch.dict(main.__globals__, to_onnx=lambda *_: other),
        pytest.raises(RunError, match=r'a\.onnx is not written'),
    ):
        main(command)
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.slow
def test_predict(exported: tuple[Path, str], tiny_config: Path, tiny_run: Path, call: Callable, tmp_path: Path) -> None:
    images = tiny_config.parent / 'shapes/val/images'
    results = []
    for name, file in (('checkpoint', tiny_run / 'iter_2.pth'), ('file', exported[0])):
        assert call('predict', images, tiny_config, file, '--device', 'cpu', '--out-dir', tmp_path / name)[0] == 0
        results.append(json.loads((tmp_path / f'{name}/predictions.segm.json').read_text()))
        assert len(list((tmp_path / f'{name}/vis').iterdir())) == 3
    expected, found = results
    assert len(found) == len(expected) > 0
    for key in ('category_name', 'file_name'):
        assert sorted(mask[key] for mask in found) == sorted(mask[key] for mask in expected)
    scores = [sorted(mask['score'] for mask in masks) for masks in results]
    np.testing.assert_allclose(*scores, atol=1e-4)


@pytest.mark.slow
def test_evaluation(
    exported: tuple[Path, str], tiny_config: Path, tiny_run: Path, call: Callable, tmp_path: Path
) -> None:
    """The command runs; test_original_weights.py compares the AP of trained weights."""
    figures = []
    for name, file in (('checkpoint', tiny_run / 'iter_2.pth'), ('file', exported[0])):
        assert call('test', tiny_config, file, '--work-dir', tmp_path / name)[0] == 0
        (log,) = (tmp_path / name).glob('*/2*.json')
        figures.append(json.loads(log.read_text().splitlines()[-1]))
    for key in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert abs(figures[0][key] - figures[1][key]) <= 0.001


@pytest.mark.slow
def test_python(exported: tuple[Path, str], tiny_config: Path, tiny_run: Path) -> None:
    """The file alone, or with its config, finds what the checkpoint finds."""
    image = tiny_config.parent / 'shapes/val/images/000000.jpg'
    models = [(exported[0],), (tiny_config, exported[0]), (tiny_config, tiny_run / 'iter_2.pth')]
    results = [centermask.load(*model, device='cpu').predict([image]) for model in models]
    alone, with_config, checkpoint = (result.pred_instances for (result,) in results)
    assert torch.equal(alone.masks, with_config.masks) and alone.masks.shape == checkpoint.masks.shape
    torch.testing.assert_close(alone.scores, checkpoint.scores, atol=1e-4, rtol=0)


EXAMPLE = REPOSITORY / 'examples/onnx_detect.py'


def test_example_needs_no_torch() -> None:
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 75
    imported = {line.split()[1] for line in lines if line.startswith(('import ', 'from '))}
    assert imported == {'json', 'sys', 'numpy', 'onnxruntime', 'PIL'}


def test_example_without_arguments_prints_its_usage() -> None:
    done = subprocess.run([sys.executable, EXAMPLE, 'a.onnx'], capture_output=True, text=True)
    assert done.returncode == 1 and 'MODEL.onnx IMAGE OUT.png [MIN_SCORE]' in done.stderr


@pytest.mark.slow
def test_example_draws(exported: tuple[Path, str], tiny_config: Path, tmp_path: Path) -> None:
    """Boxes and masks on an image that is resized and padded."""
    before = Image.open(next((tiny_config.parent / 'shapes/val/images').iterdir())).convert('RGB').resize((1000, 520))
    before.save(tmp_path / 'image.png')
    small = before.resize((160, 83), Image.Resampling.BILINEAR)  # the config's scale is 160×160
    model = ExportedModel(exported[0])
    pixels = np.asarray(small, np.float32)[:, :, ::-1]
    images = ((pixels - model.metadata.mean) / model.metadata.std).transpose(2, 0, 1)[None].astype(np.float32)
    (found,) = model(np.pad(images, ((0, 0), (0, 0), (0, 13), (0, 0))), np.array([[83, 160]]))
    boxes = (found.boxes * np.tile([1000 / 160, 520 / 83], 2)).astype(np.float32)

    command = [sys.executable, EXAMPLE, exported[0], tmp_path / 'image.png', tmp_path / 'out.png', 0]
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
    """Full masks, and a file without metadata."""
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
@pytest.mark.parametrize(
    ('option', 'name', 'size'),  # measured: 0.494, 0.719 (ONNX Runtime quantises convs alone), 0.249
    [('half', 'a.xml', 0.52), ('int8', 'a.onnx', 0.75), ('int8', 'a.xml', 0.28)],
)
def test_reduced_precision_prints_its_ap(
    option: str,
    name: str,
    size: float,
    exported: tuple[Path, str],
    tiny_config: Path,
    tiny_run: Path,
    tools: Callable,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
) -> None:
    onnx, main = pytest.importorskip('onnx'), tools('export')
    if (option, name) == ('int8', 'a.xml'):
        pytest.importorskip('nncf')
    out = tmp_path / name
    format_ = 'onnx' if out.suffix == '.onnx' else 'openvino'
    command = [tiny_config, tiny_run / 'iter_2.pth', '--format', format_, f'--{option}', '--out', out]
    with patch.dict(main.__globals__, to_onnx=lambda *_: onnx.load(exported[0])):  # tracing takes long
        assert run(lambda: main([str(word) for word in command])) == 0
    printed = capsys.readouterr().out
    assert ('quantising on 4 images' in printed) == (option == 'int8')
    for key in ('bbox_mAP', 'segm_mAP'):
        assert re.search(rf'{key}: 0\.\d+ by the checkpoint, 0\.\d+ by the file, [+-]0\.\d+ lost', printed)
    assert ExportedModel(out).metadata.precision == option
    weights = out if format_ == 'onnx' else out.with_suffix('.bin')
    assert set(tmp_path.iterdir()) == {out, weights}
    for file in {out, weights}:
        assert f'{file} is written, {file.stat().st_size / 1e6:.1f} MB\n' in printed
    assert weights.stat().st_size < size * exported[0].stat().st_size


BAD = [
    ('export', '{config} {checkpoint} --out a.xml', '--out a.xml: the name of such a file ends in .onnx.'),
    ('export', '{config} {checkpoint} --out {tmp}/folder.onnx', 'folder.onnx is a folder: name a file.'),
    ('export', '{config} no.pth --out a.onnx', "The checkpoint no.pth doesn't exist"),
    ('export', '{config} {checkpoint} --out a.onnx --calibration x', '--calibration is for --int8'),
    ('test', '{config} no.onnx', "The checkpoint no.onnx doesn't exist"),
    ('test', '{config} {bad} --tta', '--tta: an exported file looks at an image as it is'),
    ('test', '{config} {bad}', 'bad.onnx is damaged or no model: export the checkpoint again by tools/export.py.'),
    (
        'test',
        '{config} {bad} --cfg-options model.test_cfg.score_thr=0.1',
        "score_thr: an exported file can't be changed",
    ),
    ('predict', '{images} {config} {bad} --device cpu --out-dir {tmp}/out', 'bad.onnx is damaged or no model'),
]


@pytest.mark.parametrize(('tool', 'argv', 'words'), BAD, ids=[f'{tool} {argv[-24:]}' for tool, argv, _ in BAD])
def test_bad_input(
    tool: str, argv: str, words: str, call: Callable, tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / 'bad.onnx').write_bytes(b'no model')
    (tmp_path / 'folder.onnx').mkdir()
    paths = dict(
        config=tiny_config,
        checkpoint=tiny_run / 'iter_2.pth',
        bad=tmp_path / 'bad.onnx',
        images=tiny_config.parent / 'shapes/val/images',
        tmp=tmp_path,
    )
    work_dir = ['--work-dir', str(tmp_path / 'run')] if tool == 'test' else []
    code, last = call(tool, *argv.format(**paths).split(), *work_dir)
    assert code == 2 and last.startswith('error: ') and words in last
