"""Variants of a model."""

import pytest
import torch
from helpers.small_detectors import small_config, small_model, small_settings

from centermask.benchmark.comparison import latency
from centermask.benchmark.models import variants
from centermask.export.exported_detector import ExportedCenterMask

COMPILED = {
    'star': {'backbone', 'neck', 'bbox_head', 'roi_head.mask_head', 'roi_head.mask_iou_head'},
    'Mask R-CNN': {'backbone', 'neck', 'rpn_head', 'roi_head.bbox_head', 'roi_head.mask_head'},
}


@pytest.mark.parametrize('kind', COMPILED)
def test_compiled_parts(kind: str) -> None:
    first = small_model(kind)
    (compiled,) = variants(first, small_settings(compiled=True))
    parts = [
        {name for name, part in one.model.named_modules() if part._compiled_call_impl is not None}
        for one in (first, compiled)
    ]
    assert parts == [set(), COMPILED[kind]]


def test_other_variants() -> None:
    first = small_model('YOLACT')
    found = list(variants(first, small_settings(equal=True, amp=True, channels_last=True)))
    assert [one.variant for one in found] == ['equal', 'bfloat16', 'channels-last']
    assert all(len(one.run(0)[0].pred_instances) == 5 for one in found)
    assert [one.variant for one in variants(small_model('star'), small_settings(equal=True))] == []


def test_latency_leaves_the_config_as_it_is() -> None:
    config = small_config('star')
    before = config.to_dict()
    ms, size = latency(config, small_settings(rounds=1))
    assert ms > 0
    assert size == (96, 128)
    assert config.to_dict() == before


@pytest.mark.slow
def test_exported() -> None:
    """A file gives the objects too, whatever its network finds."""
    pytest.importorskip('onnxruntime')
    from centermask.benchmark.exported import exported_variants

    settings = small_settings(masks='rle', runtimes=('onnxruntime',), int8=True)
    first = small_model('star', masks='rle')
    file, quantised = exported_variants(first, small_config('star'), settings)
    assert (file.variant, file.precision, file.backend) == ('onnxruntime', 'float32', 'onnxruntime')
    assert (quantised.variant, quantised.precision) == ('onnxruntime, int8', 'int8')
    assert isinstance(file.model, ExportedCenterMask)
    expected, found = (one.run(0)[0].pred_instances for one in (first, file))
    assert len(found.masks) == 5
    torch.testing.assert_close(found.bboxes, expected.bboxes, atol=0.05, rtol=0)
