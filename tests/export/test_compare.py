"""Which differences between a checkpoint and its file are allowed."""

import numpy as np
import torch

from centermask.export.compare import Comparison, Image
from centermask.export.eager import Eager
from centermask.export.runtime import Detections

Row = tuple[tuple[float, float, float, float], int, float]
"""A detection: its box, its class and its score."""

FAR: Row = ((10, 10, 30, 30), 0, 0.9)
LEFT: Row = ((50, 50, 90, 90), 1, 0.8)
RIGHT: Row = ((60, 50, 100, 90), 1, 0.7)  # its IoU with the left one is 30 / 50
TEST_CFG = dict(score_thr=0.05, max_per_img=50, nms=dict(iou_threshold=0.6))


def _detections(*rows: Row) -> Detections:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    labels, scores = np.array([row[1] for row in rows], int), np.array([row[2] for row in rows], np.float32)
    return Detections(boxes, labels, scores, scores, np.zeros((len(rows), 28, 28), np.float32))


def _compare(expected: list[Row], found: list[Row], class_score: float = 0.5, last_score: float = -1) -> Comparison:
    """``class_score`` is that of the right one."""
    rows = [FAR, LEFT, RIGHT]
    class_scores = torch.full((3, 2), 0.5)
    class_scores[2] = class_score
    boxes = torch.tensor([row[0] for row in rows])
    eager = Eager(_detections(*expected), boxes, boxes, class_scores, last_score)
    result = Comparison()
    Image(eager, _detections(*found), TEST_CFG).compare(result)
    return result


def _moved(row: Row, pixels: float = 0, score: float = 0) -> Row:
    return (*(value + pixels for value in row[0]),), row[1], row[2] + score  # type: ignore[return-value]


def test_same() -> None:
    result = _compare([FAR, LEFT], [_moved(LEFT, 0.005, 5e-5), FAR])
    assert (result.matched, result.allowed, result.wrong) == (2, [], [])
    assert 0.004 < result.boxes < 0.006 and 4e-5 < result.scores < 6e-5


def test_too_far() -> None:
    assert 'scores 2.0e-04' in _compare([FAR], [_moved(FAR, 0, 2e-4)]).wrong[0]
    assert len(_compare([FAR], [_moved(FAR, 0.02)]).wrong) == 2
    assert len(_compare([FAR], [(FAR[0], 1, FAR[2])]).wrong) == 2
    assert _compare([FAR], []).wrong == [
        'only the checkpoint has class 0 at (10.0, 10.0, 30.0, 30.0) with score 0.9000'
    ]


def test_at_the_threshold() -> None:
    result = _compare([FAR], [FAR, RIGHT], class_score=0.05005)
    assert result.wrong == [] and 'only the file has' in result.allowed[0] and 'threshold' in result.allowed[0]
    assert len(_compare([FAR], [FAR, RIGHT], class_score=0.052).wrong) == 1


def test_at_the_last() -> None:
    assert 'the last of 50' in _compare([FAR, RIGHT], [FAR], last_score=0.70005).allowed[0]
    assert len(_compare([FAR, RIGHT], [FAR], last_score=0.69).wrong) == 1


def test_at_the_overlap() -> None:
    """And what such a one suppresses or displaces."""
    assert "NMS's 0.6" in _compare([LEFT], [LEFT, RIGHT]).allowed[0]
    result = _compare([LEFT], [RIGHT], class_score=0.05)
    assert result.wrong == [] and len(result.allowed) == 2


def test_finite() -> None:
    assert len(_compare([FAR], [(FAR[0], FAR[1], float('nan'))]).wrong) > 0
