"""tools/benchmark.py from configs to tables, figures and a plot."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from centermask.benchmark import comparison, machine, report

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SLIM = str(CONFIGS / 'centermask-lite-star_v2-19-slim_fpn_4x_coco.py')
LITE = str(CONFIGS / 'centermask-lite_v2-19_fpn_4x_coco.py')
MODEL = {  # what every model's entry holds
    'config', 'way', 'backend', 'precision', 'masks', 'input', 'parameters', 'mask AP', 'candidates', 'into_nms',
    'detections', 'object_size', 'shares', 'ms', 'quartiles', 'ratio', 'flops', 'calls', 'waits',
    'waits_by_operator', 'memory', 'stages', 'network ms', 'beside network', 'share of peak',
    'calls of pasting', 'waits of pasting',
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's peak is looked for in moments."""
    monkeypatch.setattr(machine, 'MATRIX', 64)
    monkeypatch.setattr(machine, 'CONV', (8, 16, 16))
    monkeypatch.setattr(comparison, 'STAGE_ROUNDS', 1)


def test_two_models(tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'out'
    arguments = ['--size', '64', '96', '--detections', '5', '--rounds', '2', '--amp', '--out', str(out)]
    tools('benchmark')([SLIM, LITE, *arguments])
    measured = json.loads((out / 'benchmark.json').read_text())
    assert {'machine', 'date', 'command', 'torch', 'peak', 'rounds', 'pictures', 'models', 'training'} <= set(measured)
    assert [(Path(m['config']).name, m['way']) for m in measured['models']] == [
        (Path(config).name, way) for config in (SLIM, LITE) for way in ('as shipped', 'bfloat16')
    ]
    for model in measured['models']:
        assert set(model) == MODEL
        assert model['detections'] == 5
        assert model['masks'] == 'tensor'
        assert model['quartiles'][0] <= model['ms'] <= model['quartiles'][1]
        assert model['ratio'] == pytest.approx(model['ms'] / measured['models'][0]['ms'])
        assert model['share of peak'] > 0
        assert (model['waits'], model['waits of pasting']) == (6, 1)  # the one that brings all to the host
        assert 0 < model['calls of pasting'] < model['calls']
    shown = capsys.readouterr().out
    assert 'round 1 of 3, ' in shown
    assert (out / 'benchmark.md').read_text() in shown
    assert '| centermask-lite_v2-19_fpn_4x_coco | bfloat16 |' in shown
    assert cv2.imread(str(out / 'benchmark.png')) is not None

    assert report.WHY_NOT_SEEN not in shown
    del measured['models'][1]['memory']
    assert report.WHY_NOT_SEEN in report.tables(measured)


def test_photographs_and_run_lengths(tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / name), pixels)
    arguments = ['--images', str(tmp_path), '--masks', 'rle', '--size', '64', '96', '--detections', '5']
    tools('benchmark')([SLIM, *arguments, '--rounds', '1', '--no-stages', '--out', str(tmp_path)])
    measured = json.loads((tmp_path / 'benchmark.json').read_text())
    assert measured['pictures'] == [[70, 50]] * 2
    assert '1 to time in 1 rounds after 2 to warm up' in capsys.readouterr().out  # each picture once
    (model,) = measured['models']
    assert model['masks'] == 'rle'
    assert 'stages' not in model
    assert model['input'] == [90, 64] or model['input'] == [89, 64]


@pytest.mark.parametrize(
    'arguments, told',
    [
        (['nowhere.py'], "The config nowhere.py doesn't exist"),
        (['mmdet::mask_rcnn/nothing.py'], 'The config mmdet::mask_rcnn/nothing.py is not in the package'),
        ([SLIM, '--rounds', '0'], '--rounds 0: give 1 or more.'),
        ([SLIM, '--detections', '0'], '--detections 0: give 1 or more.'),
        ([SLIM, '--size', '96', '64'], '--size 96 64: give the shorter side first'),
        ([SLIM, '--images', 'nowhere'], "The image or folder nowhere doesn't exist"),
        ([SLIM, '--backend', 'tensorrt'], "--backend tensorrt: 'tensorrt' is none of eager, onnxruntime, openvino"),
        ([SLIM, '--int8'], '--int8 is for exported models: add --backend'),
        ([SLIM, '--device', 'cuda:77'], '--device cuda:77 is not on this machine'),
    ],
)
def test_wrong_arguments(arguments: list[str], told: str, tools: Callable, tmp_path: Path) -> None:
    from centermask.utils.errors import InputError

    with pytest.raises(InputError, match=told):
        tools('benchmark')([*arguments, '--out', str(tmp_path)])
