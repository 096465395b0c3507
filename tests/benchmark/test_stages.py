"""Time goes to the stage that runs, and to no other."""

import pytest
import torch
from helpers.small_detectors import small_model

from centermask.benchmark.stages import STAGES, Stopwatch, timed_by_stage

PANOPTIC = ('semantic head', 'fusion')


def test_inner_stages_stop_outer_ones() -> None:
    clock = iter([0, 1, 3, 6, 10, 15])
    watch = Stopwatch(lambda: next(clock))
    with watch.whole():  # from 0
        watch.start('a')  # at 1
        watch.start('b')  # at 3
        watch.stop()  # at 6
        watch.stop()  # at 10
    assert watch.seconds == {'rest': 1 + 5, 'a': 2 + 4, 'b': 3}


@pytest.mark.parametrize(
    'kind, masks, absent',
    [
        ('paper', 'rle', PANOPTIC),
        ('panoptic', 'rle', ()),
        ('TensorMask', 'rle', PANOPTIC),
        ('ShapeMask', 'rle', PANOPTIC),
        ('Mask R-CNN', 'rle', PANOPTIC),
        ('YOLACT', 'tensor', ('encoding', *PANOPTIC)),
        ('RTMDet-Ins', 'tensor', ('encoding', 'pasting', *PANOPTIC)),
    ],
)
def test_stages_of_models(kind: str, masks: str, absent: tuple[str, ...]) -> None:
    """Each kind of model spends time in every stage that it has, and nothing stays patched."""
    timed = small_model(kind, masks=masks)
    head = timed.model.roi_head.mask_head if kind == 'Mask R-CNN' else timed.model.bbox_head
    hooks, predict = len(torch.nn.modules.module._global_forward_hooks), type(head).predict_by_feat
    watch = Stopwatch()
    with timed_by_stage(timed.model, watch), watch.whole():
        timed.run(0)
    assert set(watch.seconds) == set(STAGES) - set(absent)
    assert len(torch.nn.modules.module._global_forward_hooks) == hooks
    assert type(head).predict_by_feat is predict
