"""Random weights that find objects as trained ones do.

What follows the network costs by what the network says: how many scores pass the threshold, how many boxes NMS gets,
how many reach the mask branch, how large they are. Random weights say nothing or everything. So the last layers of the
box heads are scaled and shifted until, on the given pictures, a few hundred scores pass, as many detections are left as
asked for, and their sizes are spread as those of COCO's objects. The test settings' thresholds stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead, RetinaHead, YOLACTHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from centermask.benchmark.calibrated_boxes import boxes_of, steer
from centermask.benchmark.calibrated_scores import SPREAD_OF_LOGITS, Scores
from centermask.benchmark.calibration_pictures import Found, Picture, look_at
from centermask.benchmark.layers import outputs_of, standardise
from centermask.utils.errors import InputError

# Scores that pass for each detection, and how many times as many where NMS leaves too few of them.
CANDIDATES = 6
MULTIPLES = (1, 2, 4, 8, 16, 32)
# The share of detections that is enough where none of these gives all: padding has places, and their boxes no area.
NEARLY = 0.9


def calibrate(model: Any, batches: Sequence[dict], detections: int) -> Found:
    """Make a model with random weights find objects on pictures.

    Args:
        model: in eval mode; changed are statistics of BN and the last layers of the box heads.
        batches: one picture each, as ``test_step`` takes them.
        detections: to find on each picture; the test settings' ``max_per_img`` should be the same.

    Raises:
        InputError: the model has a box head of another kind than FCOS, Mask R-CNN, RetinaNet and YOLACT, or NMS leaves
            too few boxes.
    """
    with torch.no_grad():
        head = _head(model)
        _normalise(model, batches)
        pictures = [Picture(model, batch) for batch in batches]
        if isinstance(model, TwoStageDetector):
            _calibrate_proposals(model.rpn_head, pictures)
        threshold = (model.roi_head if isinstance(model, TwoStageDetector) else head).test_cfg['score_thr']
        scores = Scores(head, threshold, [picture.detect for picture in pictures])
        for enough, multiple in product((detections, NEARLY * detections), MULTIPLES):
            passed, places = scores.let_through(multiple * CANDIDATES * detections)
            boxes = boxes_of(head, [picture.detect for picture in pictures], pictures[0].side, places)
            steer(boxes, [picture.sizes for picture in pictures])
            if min(picture.count() for picture in pictures) >= enough:
                return look_at(pictures, passed / len(pictures))
    raise InputError(f'NMS leaves fewer than {detections} boxes on a picture of this size: give less by --detections.')


def _head(model: Any) -> Any:
    """The head that decides which boxes there are."""
    head = model.roi_head.bbox_head if isinstance(model, TwoStageDetector) else getattr(model, 'bbox_head', None)
    if not isinstance(head, FCOSHead | RetinaHead | YOLACTHead | ConvFCBBoxHead):
        raise InputError(
            f"A {type(model).__name__} with a {type(head).__name__} can't be timed: only models with the box heads of "
            'FCOS, Mask R-CNN, RetinaNet and YOLACT can be made to find objects with random weights.'
        )
    return head


def _normalise(model: Any, batches: Sequence[dict]) -> None:
    """Give BN the statistics of its input, layer after layer, so that features neither explode nor vanish."""

    def take_statistics(norm: Any, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        # A channel that is the same everywhere stays so, also where BN's epsilon is 0.
        norm.running_var.copy_(variance.where(variance > 1e-4 * variance.mean(), variance.new_ones(())))

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    try:
        model.extract_feat(model.data_preprocessor(batches[0], False)['inputs'])
    finally:
        for hook in hooks:
            hook.remove()


def _calibrate_proposals(head: Any, pictures: Sequence[Picture]) -> None:
    """Give region proposals the sizes that detections are to have."""
    runs = [picture.propose for picture in pictures]
    standardise(head.rpn_cls, outputs_of(head.rpn_cls, runs), SPREAD_OF_LOGITS)
    steer(boxes_of(head, runs, pictures[0].side, ()), [picture.sizes_of_proposals for picture in pictures])
