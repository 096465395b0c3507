"""All models find the same objects, with COCO's sizes."""

import pytest
import torch
from helpers.small_detectors import KINDS, small_model
from mmdet.structures.bbox import bbox_overlaps

from centermask.benchmark.models import build, read_config
from centermask.benchmark.predictions import Predictions, choose_priors, draw_objects, in_pixels
from centermask.fcos_head import CenterMaskFCOSHead


@pytest.mark.parametrize('kind', KINDS)
def test_finds_the_objects(kind: str) -> None:
    model = small_model(kind, detections=12)
    (result,) = model.run(0)
    found = result.pred_instances
    assert len(found) == len(found.masks) == 12
    objects = draw_objects(12)
    boxes = in_pixels(objects, dict(ori_shape=(480, 640), scale_factor=(1, 1)))
    overlaps = bbox_overlaps(boxes, found.bboxes).amax(1)
    if kind == 'ShapeMask':  # its coder moves sides by a pixel, here five of the image
        overlaps = overlaps[(boxes[:, 2:] - boxes[:, :2]).amin(1) > 40]
    assert (overlaps > 0.7).all()  # each by one of its candidates
    assert model.predictions.candidates == 72


def test_sizes_are_those_of_coco() -> None:
    boxes = draw_objects(200).boxes
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt() * (480 * 640) ** 0.5
    ratios = [(sides < 32).float().mean(), ((sides >= 32) & (sides < 96)).float().mean(), (sides >= 96).float().mean()]
    assert ratios == pytest.approx((0.41, 0.35, 0.24), abs=0.02)
    assert boxes.min() >= 0 and boxes.max() <= 1


def test_a_model_with_queries_keeps_its_predictions() -> None:
    predictions = Predictions(build(read_config('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py')), 5)
    assert predictions.candidates is None
    assert not predictions._patches


def test_nothing_stays_patched() -> None:
    predict = CenterMaskFCOSHead.predict_by_feat
    with small_model('star').predictions.handed_in():
        assert CenterMaskFCOSHead.predict_by_feat is not predict
    assert CenterMaskFCOSHead.predict_by_feat is predict


def test_every_box_has_a_prior_of_its_own() -> None:
    """The nearest in the level of its size, the next one if that is taken, one of another level if all are."""
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 8], [0, 0, 64, 64], [0, 0, 64, 64]])
    centres = torch.tensor([[16.0, 16], [48, 16], [16, 48], [32, 32]])
    strides = torch.tensor([4.0, 4, 4, 8])
    assert choose_priors(boxes, centres, strides) == [0, 1, 3, 2]
