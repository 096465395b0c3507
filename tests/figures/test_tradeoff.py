"""Fig. 1: the points, and a machine's own."""

import json
from pathlib import Path

import cv2
import pytest

from centermask.figures import tradeoff
from centermask.figures.tradeoff import COLOURS, SHIFT, Point, backbones, draw_tradeoff, methods, read_benchmark
from centermask.tables.index import read_index
from centermask.utils.errors import InputError

ROWS = read_index(Path(__file__).resolve().parents[2] / 'configs').rows
SPREAD = tradeoff._spread


def test_points_are_the_papers() -> None:
    points = methods(ROWS)
    assert len(points) == 18
    assert Point('CenterMask*', 'CenterMask* V', 'V-99', 77, 41.8, 'V100') in points
    assert Point('YOLACT', 'YOLACT', '550 R-50', 23, 28.2, 'Titan Xp') in points
    points = backbones(ROWS)
    assert len(points) == 14
    assert Point('VoVNetV2', 'VoVNetV2', '39', 70, 35.6, 'Titan Xp') in points
    assert Point('ResNe(X)t', 'ResNe(X)t', 'ResNeXt-101', 157, 38.3, 'Titan Xp') in points


def test_every_family_has_a_colour_and_shifts_name_points() -> None:
    points = methods(ROWS) + backbones(ROWS)
    assert {point.family for point in points} == set(COLOURS)
    assert set(SHIFT) <= {(point.family, point.label) for point in points}


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    path = tmp_path / 'benchmark.json'
    models = [
        dict(config='configs/paper/centermask_v2-39_fpn_1x_coco.py', ms=1000),
        {'config': 'mine', 'ms': 500, 'mask AP': 12.5},
    ]
    path.write_text(json.dumps(dict(machine='abacus', models=models)))
    return path


def test_benchmark(benchmark: Path) -> None:
    machine, points, left_out = read_benchmark(benchmark, ROWS)
    assert machine == 'abacus' and not left_out
    assert [(point.label, point.ms, point.ap) for point in points] == [
        ('centermask_v2-39_1x', 1000, 35.6),
        ('mine', 500, 12.5),
    ]


def test_ways_of_running_and_unknown_ap(tmp_path: Path) -> None:
    """What tools/benchmark.py writes: a model in several ways, and models that the paper has no AP of."""
    path = tmp_path / 'benchmark.json'
    models = [
        {'config': 'configs/baselines/yolact-550_r50_coco.py', 'way': 'as shipped', 'ms': 20, 'mask AP': None},
        {'config': 'configs/baselines/yolact-550_r50_coco.py', 'way': 'bfloat16', 'ms': 10, 'mask AP': None},
        {'config': 'mmdet::solo/solo_r50_fpn_1x_coco.py', 'way': 'as shipped', 'ms': 30, 'mask AP': None},
    ]
    path.write_text(json.dumps(dict(machine='abacus', models=models)))
    found = read_benchmark(path, ROWS)
    assert [(point.label, point.ms, point.ap) for point in found.points] == [
        ('yolact-550_r50', 20, 28.2),
        ('yolact-550_r50, bfloat16', 10, 28.2),
    ]
    assert found.left_out == ['solo_r50_fpn_1x_coco']
    told = draw_tradeoff(ROWS, tmp_path / 'own.png', path)
    assert told == 'not in the plot, since their mask AP is not known: solo_r50_fpn_1x_coco'
    path.write_text(json.dumps(dict(machine='abacus', models=models[2:])))
    draw_tradeoff(ROWS, tmp_path / 'paper.png', path)  # no panel without a point
    heights = [cv2.imread(str(tmp_path / name)).shape[0] for name in ('own.png', 'paper.png')]
    assert heights[0] > 1.3 * heights[1]


def test_labels_of_close_points_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six ways of one model, all at the paper's AP, and two of them equally fast."""
    ways = ('as shipped', 'bfloat16', 'channels-last', 'compiled', 'onnxruntime', 'openvino')
    models = [
        {'config': 'centermask_v2-39_fpn_1x_coco', 'way': way, 'ms': 1000 + 10 * (i // 2)} for i, way in enumerate(ways)
    ]
    path = tmp_path / 'benchmark.json'
    path.write_text(json.dumps(dict(machine='abacus', models=models)))
    panels = []
    monkeypatch.setattr(tradeoff, '_spread', lambda axes, labels: panels.append((axes, labels, SPREAD(axes, labels))))
    draw_tradeoff(ROWS, tmp_path / 'own.png', path)
    ((axes, labels, _),) = panels
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == 6
    assert [box.count_overlaps(boxes) for box in boxes] == [1] * 6  # with itself
    frame = axes.get_window_extent().padded(1)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_pictures(benchmark: Path, tmp_path: Path) -> None:
    draw_tradeoff(ROWS, tmp_path / 'paper.png')
    draw_tradeoff(ROWS, tmp_path / 'own.png', benchmark)
    paper, own = (cv2.imread(str(tmp_path / name)) for name in ('paper.png', 'own.png'))
    assert paper.std() > 5
    assert own.shape[0] > 1.3 * paper.shape[0]
    draw_tradeoff(ROWS, tmp_path / 'own.svg', benchmark)
    assert (tmp_path / 'own.svg').stat().st_size > 10_000


@pytest.mark.parametrize(
    'text, told',
    [
        (None, r"can't be read \(No such file"),
        ('[' * 100_000, 'is no benchmark'),
        ('{', 'is no benchmark'),
        ('[]', 'is no benchmark'),
        ('{"machine": "m", "models": [{"config": "a"}]}', 'is no benchmark'),
        ('{"machine": "m", "models": [{"config": "a", "ms": Infinity}]}', 'is no benchmark'),
        ('{"machine": "m", "models": [{"config": "a", "ms": 1, "mask AP": "many"}]}', 'is no benchmark'),
        ('{"machine": "m", "models": [{"config": "nosuch", "ms": 1}]}', 'nosuch is in neither Table 3 nor 5'),
    ],
)
def test_benchmarks_that_are_none(text: str | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / 'benchmark.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=told):
        read_benchmark(path, ROWS)
