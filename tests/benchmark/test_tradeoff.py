"""Fig. 1: the paper's points, and a machine's own."""

import json
from pathlib import Path

import cv2
import pytest

from centermask.benchmark import tradeoff
from centermask.benchmark.metafile import read_metafile
from centermask.benchmark.tradeoff import Point, draw_tradeoff, paper_points, read_benchmark
from centermask.utils.errors import InputError

ROWS = read_metafile(Path(__file__).resolve().parents[2] / 'configs/metafile.yml')[0]


def test_points_are_the_papers() -> None:
    points = paper_points(ROWS, 5)
    assert len(points) == 18
    assert Point('CenterMask*', 'V-99', 77, 41.8, 'V100') in points
    assert Point('YOLACT', '550 R-50', 23, 28.2, 'Titan Xp') in points
    points = paper_points(ROWS, 3)
    assert len(points) == 14
    assert Point('VoVNetV2', '39', 70, 35.6, 'Titan Xp') in points


def test_a_benchmark(tmp_path: Path) -> None:
    """Variants of a model, one with an AP of its own, and one without any."""
    path = tmp_path / 'benchmark.json'
    models = [
        {'config': 'configs/yolact-550_r50_coco.py', 'variant': 'bfloat16', 'ms': 10, 'mask AP': None},
        {'config': 'mine', 'ms': 500, 'mask AP': 12.5},
        {'config': 'mmdet::solo/solo_r50_fpn_1x_coco.py', 'variant': 'as shipped', 'ms': 30, 'mask AP': None},
    ]
    path.write_text(json.dumps(dict(machine='abacus', models=models)))
    machine, points, unknown = read_benchmark(path, ROWS)
    assert machine == 'abacus'
    assert [(point.label, point.ms, point.ap) for point in points] == [
        ('yolact-550_r50, bfloat16', 10, 28.2),
        ('mine', 500, 12.5),
    ]
    assert unknown == ['solo_r50_fpn_1x_coco']
    assert draw_tradeoff(ROWS, tmp_path / 'own.png', path) == unknown
    draw_tradeoff(ROWS, tmp_path / 'paper.png')
    heights = [cv2.imread(str(tmp_path / name)).shape[0] for name in ('own.png', 'paper.png')]
    assert heights[0] == pytest.approx(1.5 * heights[1], abs=2)


def test_labels_cover_no_other_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's, and six variants of one model with the same AP."""
    variants = ('as shipped', 'bfloat16', 'channels-last', 'compiled', 'onnxruntime', 'openvino')
    models = [
        {'config': 'centermask_v2-39_fpn_1x_coco', 'variant': variant, 'ms': 1000 + 10 * (i // 2)}
        for i, variant in enumerate(variants)
    ]
    path = tmp_path / 'benchmark.json'
    path.write_text(json.dumps(dict(machine='abacus', models=models)))
    panels, spread = [], tradeoff._spread
    monkeypatch.setattr(tradeoff, '_spread', lambda axes, labels: panels.append((axes, labels, spread(axes, labels))))
    draw_tradeoff(ROWS, tmp_path / 'own.png', path)
    assert [len(labels) for _, labels, _ in panels] == [18, 14, 6]
    for axes, labels, _ in panels:
        boxes = [label.get_window_extent() for label in labels]
        assert [box.count_overlaps(boxes) for box in boxes] == [1] * len(boxes)  # with itself
        frame = axes.get_window_extent().padded(1)
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


@pytest.mark.parametrize(
    'text, message',
    [
        (None, r"can't be read \(No such file"),
        ('{', 'is no benchmark'),
        ('{"machine": "m", "models": [{"config": "a"}]}', 'is no benchmark'),
        ('{"machine": "m", "models": [{"config": "a", "ms": Infinity}]}', 'is no benchmark'),
    ],
)
def test_files_that_are_no_benchmark(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'benchmark.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_benchmark(path, ROWS)
