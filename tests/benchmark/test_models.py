"""Variants of a model."""

import pytest
import torch
from helpers.small_detectors import small_config, small_model, small_settings
from mmdet.structures.bbox import bbox_overlaps

from centermask.benchmark.comparison import latency
from centermask.benchmark.models import EQUAL, Variant, variants_of
from centermask.export.exported_detector import ExportedCenterMask


def test_variants() -> None:
    """Those of a CenterMask, and of a model that takes no part in exporting."""
    settings = small_settings(equal=True, amp=True, runtimes=('onnxruntime', 'openvino'), int8=True)
    assert [variant.name for variant in variants_of(small_config('star'), settings)] == [
        'as shipped',
        'bfloat16',
        'onnxruntime',
        'onnxruntime, int8',
        'openvino',
        'openvino, bfloat16',
        'openvino, int8',
    ]
    assert [variant.name for variant in variants_of(small_config('YOLACT'), settings)] == [
        'as shipped',
        'equal',
        'bfloat16',
    ]


@pytest.mark.parametrize('variant', [EQUAL, Variant('bfloat16', 'bfloat16')])
def test_variants_find_the_same(variant: Variant) -> None:
    expected, found = (
        one.run()[0].pred_instances for one in (small_model('YOLACT'), small_model('YOLACT', variant=variant))
    )
    torch.testing.assert_close(found.bboxes, expected.bboxes, atol=1, rtol=0)


def test_latency_leaves_the_config_as_it_is() -> None:
    config = small_config('star')
    before = config.to_dict()
    ms, size = latency(config, small_settings(rounds=1))
    assert ms > 0
    assert size == (96, 128)
    assert config.to_dict() == before


@pytest.mark.slow
def test_exported() -> None:
    """A quantised file gives the objects too, whatever its network finds."""
    pytest.importorskip('onnxruntime')
    from centermask.benchmark.exported import export

    first = small_model('star', masks='rle')
    file = export(first, small_config('star'), 5, Variant('a file', 'int8', 'onnxruntime'))
    assert isinstance(file.model, ExportedCenterMask)
    expected, found = (one.run()[0].pred_instances for one in (first, file))
    assert len(found.masks) == 5
    assert (bbox_overlaps(expected.bboxes, found.bboxes).amax(1) > 0.7).all()  # each by one of its candidates
