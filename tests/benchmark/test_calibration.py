"""Random weights find as many objects as asked for, with COCO's sizes."""

import pytest
from helpers.small_contestants import KINDS, small_config
from mmengine.hub import get_config

from centermask.benchmark.calibrated_boxes import COCO_SHARES
from centermask.benchmark.calibration import calibrate
from centermask.tables.measure import build
from centermask.utils.errors import InputError


@pytest.mark.parametrize('kind', KINDS)
def test_finds_what_is_asked_for(kind: str, calibrated) -> None:
    contestant, found = calibrated(kind, 12)
    (result,) = contestant.run(0)
    assert len(result.pred_instances) == 12
    assert found.detections == 12
    assert found.candidates in (72, 144, 288, 576)  # more where NMS leaves too few
    assert found.into_nms >= 12
    assert 15 < found.object_size < 100
    assert sum(found.shares) == pytest.approx(1)
    assert found.shares == pytest.approx(COCO_SHARES, abs=0.15)  # of 12, it can't be nearer than 0.07


def test_several_pictures(calibrated) -> None:
    contestant, found = calibrated('star', 10, pictures=2)
    assert found.detections == 10
    assert found.candidates % 60 == 0
    assert [len(contestant.run(number)[0].pred_instances) for number in range(3)] == [10, 10, 10]


def test_the_same_twice(calibrated) -> None:
    assert calibrated('star', 5)[1] == calibrated('star', 5)[1]


def test_more_than_a_picture_can_hold(calibrated) -> None:
    config = small_config('star', 60)
    config.model.test_cfg.nms_pre = 10
    with pytest.raises(InputError, match=r'NMS leaves fewer than 60 boxes .* give less by --detections'):
        calibrated(config, 60)


def test_a_model_without_such_a_head() -> None:
    config = get_config('mmdet::solo/solo_r50_fpn_1x_coco.py')
    with pytest.raises(InputError, match="A SOLO with a NoneType can't be timed: only models with"):
        calibrate(build(config), [], 5)
