"""tools/benchmark.py from configs to tables, results and a plot."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from centermask.benchmark import comparison, machine
from centermask.benchmark.results import WHY_UNKNOWN, tables
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SLIM = str(CONFIGS / 'centermask-lite-star_v2-19-slim_fpn_4x_coco.py')
RTMDET = 'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'


@pytest.fixture(autouse=True)
def small_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the measurement of the machine's peak fast."""
    monkeypatch.setattr(machine, 'MATRIX', 64)
    monkeypatch.setattr(machine, 'CONV', (8, 16, 16))
    monkeypatch.setattr(comparison, 'STAGE_ROUNDS', 1)


def test_variants_of_a_model(tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ['--size', '64', '96', '--detections', '5', '--rounds', '2', '--amp', '--out', str(tmp_path)]
    tools('benchmark')([SLIM, *arguments])
    results = json.loads((tmp_path / 'benchmark.json').read_text())
    assert [(Path(m['config']).name, m['variant']) for m in results['models']] == [
        (Path(SLIM).name, variant) for variant in ('as shipped', 'bfloat16')
    ]
    for model in results['models']:
        assert model['detections'] == 5
        assert model['quartiles'][0] <= model['ms'] <= model['quartiles'][1]
        assert model['ratio'] == pytest.approx(model['ms'] / results['models'][0]['ms'])
        assert model['peak ratio'] > 0
        assert model['waits'] <= 6
        assert model['waits of pasting'] == 1  # the one that brings all to the host
        assert 0 < model['calls of pasting'] < model['calls'] <= 800
    shown = capsys.readouterr().out
    assert 'round 1 of 3, ' in shown
    assert (tmp_path / 'benchmark.md').read_text() in shown
    assert '| centermask-lite-star_v2-19-slim_fpn_4x_coco | bfloat16 |' in shown
    assert cv2.imread(str(tmp_path / 'benchmark.png')) is not None
    assert WHY_UNKNOWN not in shown
    del results['models'][1]['calls']
    assert WHY_UNKNOWN in tables(results)


@pytest.mark.slow
def test_another_detector_beside_it(tools: Callable, tmp_path: Path) -> None:
    """RTMDet-Ins runs in a process of its own, its equal variant in this one; training is timed, too."""
    sizes = ['--size', '64', '96', '--detections', '5', '--rounds', '1', '--no-stages', '--threads', '1']
    tools('benchmark')([RTMDET, SLIM, *sizes, '--equal', '--train', '1', '--device', 'cpu', '--out', str(tmp_path)])
    results = json.loads((tmp_path / 'benchmark.json').read_text())
    assert [m['variant'] for m in results['models']] == ['as shipped', 'equal', 'as shipped']
    assert [m['detections'] for m in results['models']] == [5, 5, 5]
    assert [step['positive RoIs'] is None for step in results['training']] == [True, False]
    assert all(step['ms'] > 0 for step in results['training'])


def test_images_and_run_lengths(tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / name), pixels)
    arguments = ['--images', str(tmp_path), '--masks', 'rle', '--size', '64', '96', '--detections', '5']
    tools('benchmark')([SLIM, *arguments, '--rounds', '1', '--no-stages', '--out', str(tmp_path)])
    results = json.loads((tmp_path / 'benchmark.json').read_text())
    assert results['images'] == [[70, 50]] * 2
    assert '1 to time in 1 rounds after 2 to warm up' in capsys.readouterr().out  # each image once
    (model,) = results['models']
    assert model['masks'] == 'rle'
    assert 'stages' not in model
    assert model['input'] in ([90, 64], [89, 64])


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['nowhere.py'], "The config nowhere.py doesn't exist"),
        (['mmdet::_base_/default_runtime.py'], 'has no model.test_cfg or no test_dataloader'),
        (['mmdet::mask_rcnn/nothing.py'], 'The config mmdet::mask_rcnn/nothing.py is not in the package'),
        ([SLIM, '--rounds', '0'], '--rounds 0: give 1 or more.'),
        ([SLIM, '--size', '96', '64'], '--size 96 64: give the shorter side first'),
        ([SLIM, '--images', 'nowhere'], "The image or folder nowhere doesn't exist"),
        ([SLIM, '--backend', 'tensorrt'], "--backend tensorrt: 'tensorrt' is none of eager, onnxruntime, openvino"),
        ([SLIM, '--int8'], '--int8 is for exported models: add --backend'),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, tools: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        tools('benchmark')([*arguments, '--out', str(tmp_path)])
