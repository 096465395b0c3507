"""Costs of an inference besides arithmetic: numbers of operator calls and host waits of both recipes."""

import copy
from collections import Counter

import pytest
import torch
from helpers.small_model import WIDTH, noise_image, sample, small_model

from centermask.benchmark.counting import Cost, count

# A ResNet-50 and heads of full depth, but narrow: the operators are those of the full model.
DEEP = {
    'backbone': dict(
        _delete_=True, type='ResNet', depth=50, base_channels=8, out_indices=(1, 2, 3), norm_eval=True, style='caffe'
    ),
    'neck.in_channels': [64, 128, 256],
    'bbox_head.stacked_convs': 4,
    'roi_head.mask_head.num_convs': 4,
    'roi_head.mask_iou_head': dict(num_convs=4, in_channels=WIDTH, conv_out_channels=WIDTH, fc_out_channels=16),
    'test_cfg.score_thr': 0.0,
    'test_cfg.nms_pre': 100,
}
SIZE = (128, 160)
# NMS, the candidates above the threshold, levels of the RoIs, the result.
WAITS = Counter({'mmcv.nms': 1, 'nonzero': 1, 'cpu': 2})
# MMEngine asks a tensor of sizes, which is on the host anyway, whether images are padded, and reads by how much.
NOT_PADDED = Counter({'_local_scalar_dense': 1})
PADDED = Counter({'_local_scalar_dense': 1, 'tolist': 1})
MAX_CALLS = 600  # 800 are allowed to the largest models, which take 740


def _count(model: torch.nn.Module, size: tuple[int, int]) -> tuple[Cost, int]:
    """Count the cost of the second image; return it and the number of detections."""
    data = dict(inputs=[noise_image(*size)], data_samples=[sample(*size)])
    with torch.no_grad():
        model.test_step(copy.deepcopy(data))  # the fused copy is built
        with count() as cost:
            (result,) = model.test_step(data)
    return cost, len(result.pred_instances)


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_counts_from_an_image_to_its_result(recipe: str) -> None:
    """At most six waits are needed, padded or not, for few or many detections, for arrays or encoded masks."""
    model = small_model(recipe, DEEP)
    calls = set()
    for mask_format, max_per_img, size, padding in (
        ('tensor', 50, SIZE, NOT_PADDED),
        ('rle', 50, SIZE, NOT_PADDED),
        ('rle', 10, SIZE, NOT_PADDED),
        ('tensor', 50, (100, 150), PADDED),
    ):
        model.roi_head.test_cfg['mask_format'] = mask_format
        model.bbox_head.test_cfg['max_per_img'] = max_per_img
        cost, detections = _count(model, size)
        assert 0 < detections <= max_per_img
        assert cost.by_operator == WAITS + padding and cost.waits <= 6
        assert cost.calls <= MAX_CALLS
        if size == SIZE:
            calls.add(cost.calls)
    assert len(calls) <= 2  # pasting calls no operators, however many masks there are


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_waits_without_detections(recipe: str) -> None:
    model = small_model(recipe, {**DEEP, 'test_cfg.score_thr': 1.0})
    cost, detections = _count(model, SIZE)
    assert detections == 0 and cost.by_operator <= WAITS + NOT_PADDED
