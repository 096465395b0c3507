"""NMS with every option of MMCV, and IoU of boxes that include their last pixel."""

from typing import Any

import pytest
import torch
from helpers.small_model import small_model

from centermask import LegacyBboxOverlaps2D
from centermask.boxes import nms_of_image

# Two boxes with an IoU of 0.9, and one apart.
BOXES = torch.tensor([[0, 0, 10, 10.0], [0, 1, 10, 10], [50, 50, 60, 60]])
SCORES = torch.tensor([0.9, 0.8, 0.5])
NMS: dict[str, tuple[dict | None, list[int], list[float], list[float]]] = {  # indices, their scores; of two classes
    'by class': (dict(iou_threshold=0.6), [0, 2], [0.9, 0.5], [0.9, 0.8, 0.5]),
    'of all classes': (dict(iou_threshold=0.6, class_agnostic=True), [0, 2], [0.9, 0.5], [0.9, 0.5]),
    'split': (dict(iou_threshold=0.6, class_agnostic=True, split_thr=1), [0, 2], [0.9, 0.5], [0.9, 0.5]),
    'at most one': (dict(iou_threshold=0.6, max_num=1), [0], [0.9], [0.9]),
    'high scores': (dict(iou_threshold=0.6, score_threshold=0.6), [0], [0.9], [0.9, 0.8]),
    'linear': (dict(type='soft_nms', iou_threshold=0.6), [0, 2, 1], [0.9, 0.5, 0.08], [0.9, 0.8, 0.5]),
    'soft, of all classes': (
        dict(type='soft_nms', iou_threshold=0.6, class_agnostic=True),
        [0, 2, 1],
        [0.9, 0.5, 0.08],
        [0.9, 0.5, 0.08],
    ),
    'gaussian': (  # 0.8 · exp(−0.9² / 0.5)
        dict(type='soft_nms', iou_threshold=0.6, method='gaussian', sigma=0.5, min_score=0.1),
        [0, 2, 1],
        [0.9, 0.5, 0.1583],
        [0.9, 0.8, 0.5],
    ),
    'none': (None, [0, 1, 2], [0.9, 0.8, 0.5], [0.9, 0.8, 0.5]),
}


@pytest.mark.parametrize('case', NMS)
def test_nms(case: str) -> None:
    cfg, expected, lowered, of_two_classes = NMS[case]
    scores = SCORES.clone()
    kept, found = nms_of_image(BOXES, scores, torch.tensor([1, 1, 1]), 3, cfg)
    assert kept.tolist() == expected and found.tolist() == pytest.approx(lowered, abs=1e-4)
    assert torch.equal(scores, SCORES)
    assert nms_of_image(BOXES, scores, torch.tensor([0, 1, 1]), 3, cfg)[1].tolist() == pytest.approx(of_two_classes)


@pytest.mark.parametrize(
    'nms, words',
    [
        (dict(type='nms_rotated'), "test_cfg.nms.type is 'nms' or 'soft_nms', not 'nms_rotated'"),
        (dict(iou_thr=0.6), 'test_cfg.nms.iou_thr is no setting of nms, which takes class_agnostic, iou_threshold'),
        (dict(iou_threshold=0.6, sigma=0.5), 'test_cfg.nms.sigma is no setting of nms'),
        (dict(type='soft_nms', max_num=5), 'test_cfg.nms.max_num is no setting of soft_nms'),
        (dict(type='soft_nms', method='cubic'), "test_cfg.nms.method is one of .* not 'cubic'"),
        (dict(iou_threshold=60), 'test_cfg.nms.iou_threshold is a number from 0 to 1, not 60'),
        (dict(type='nms'), 'test_cfg.nms.iou_threshold is a number from 0 to 1, not None'),
        (dict(iou_threshold=0.6, offset=2), 'test_cfg.nms.offset is one of'),
    ],
)
def test_unusable_nms_is_refused(nms: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small_model(changes={'test_cfg.nms': dict(_delete_=True, **nms)})


def test_counts_pixels() -> None:
    boxes = torch.tensor([[0, 0, 9, 9.0], [4, 4, 4, 4]])
    others = torch.tensor([[0, 0, 9, 4.0], [9, 9, 18, 18], [10, 0, 12, 9], [4, 4, 4, 4]])
    # The overlaps of 10×10 pixels are 50 of 100, 1 of 199, none, and 1 of 100.
    overlaps = LegacyBboxOverlaps2D()(boxes, others)
    assert overlaps[0].tolist() == pytest.approx([0.5, 1 / 199, 0, 0.01])
    assert overlaps[1].tolist() == pytest.approx([1 / 50, 0, 0, 1])


def test_no_boxes() -> None:
    assert LegacyBboxOverlaps2D()(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
