"""Comparison of detections by class, box, scores and mask."""

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from mmengine.structures import InstanceData

from centermask.export.compare import Comparison
from centermask.structures.rle_masks import RLEMasks

SIZE = (100, 120)
Row = tuple[tuple[float, float, float, float], int, float]
"""Box, class and score of a detection, whose mask fills its box."""
FIRST: Row = ((10, 10, 30, 30), 0, 0.9)
SECOND: Row = ((50, 50, 90, 90), 1, 0.8)


def instances(*rows: Row, mask_shift: int = 0) -> InstanceData:
    masks = np.zeros((*SIZE, len(rows)), np.uint8, order='F')
    for i, ((left, top, right, bottom), _, _) in enumerate(rows):
        masks[round(top) : round(bottom), round(left) + mask_shift : round(right) + mask_shift, i] = 1
    return InstanceData(
        bboxes=torch.tensor([row[0] for row in rows]).reshape(-1, 4),
        labels=torch.tensor([row[1] for row in rows], dtype=torch.long),
        scores=torch.tensor([row[2] for row in rows]),
        masks=RLEMasks(coco_mask.encode(masks), SIZE),
    )


def compare(expected: InstanceData, found: InstanceData) -> Comparison:
    comparison = Comparison()
    comparison.add(expected, found)
    return comparison


def test_agreement_in_any_order() -> None:
    moved: Row = ((10.05, 10, 30, 30), 0, 0.9005)
    result = compare(instances(FIRST, SECOND), instances(SECOND, moved))
    assert (result.agreeing, result.total, result.agrees) == (2, 2, True)
    assert result.box == pytest.approx(0.05, abs=1e-4) and result.score == pytest.approx(5e-4, abs=1e-5)
    assert str(result).startswith('2 of 2 detections agree; largest deviations: boxes 5.0e-02 pixels, scores 5.0e-04,')


def test_nothing_on_both_sides() -> None:
    assert compare(instances(), instances()).agrees


@pytest.mark.parametrize(
    ('found', 'agreeing', 'total'),
    [
        ([], 0, 1),
        ([((10.2, 10, 30, 30), 0, 0.9)], 0, 2),
        ([(FIRST[0], 1, 0.9)], 0, 2),
        ([(FIRST[0], 0, 0.902)], 0, 1),
        ([(FIRST[0], 0, float('nan'))], 0, 2),
        ([FIRST, SECOND], 1, 2),
    ],
    ids=['missing', 'other box', 'other class', 'other score', 'not a number', 'one too many'],
)
def test_disagreement(found: list[Row], agreeing: int, total: int) -> None:
    result = compare(instances(FIRST), instances(*found))
    assert (result.agreeing, result.total, result.agrees) == (agreeing, total, False)


def test_other_mask() -> None:
    result = compare(instances(FIRST), instances(FIRST, mask_shift=1))
    assert (result.agreeing, result.total) == (0, 1)
    assert result.mask == pytest.approx(2 / 21)


def test_of_two_detections_with_the_same_box_the_scores_decide() -> None:
    twice = [FIRST, (FIRST[0], 0, 0.5)]
    assert compare(instances(*twice), instances(*twice[::-1])).agreeing == 2


def test_one_in_twenty_may_disagree() -> None:
    rows: list[Row] = [((i, 0, i + 9, 9), 0, 0.5) for i in range(20)]
    assert compare(instances(*rows), instances(*rows[:19])).agrees
    assert not compare(instances(*rows), instances(*rows[:18])).agrees
