"""Exported models beside the eager one; how right they are is tested with the exporter."""

import pytest
import torch
from helpers.one_size import of_one_size
from helpers.small_contestants import small_config

from centermask.benchmark.exported import exported_ways


@pytest.mark.slow
def test_runs_as_a_file(calibrated) -> None:
    """A runtime finds what the model finds."""
    pytest.importorskip('onnxruntime')
    contestant, _ = calibrated('star', 5, masks='rle')
    with of_one_size():
        ways = exported_ways(contestant, small_config('star', 5), ('onnxruntime',), half=True, int8=True)
        way, quantised = ways
    assert (way.way, way.precision, way.backend) == ('onnxruntime', 'float32', 'onnxruntime')
    assert (quantised.way, quantised.precision) == ('onnxruntime, int8', 'int8')
    assert quantised.model.exported.metadata.precision == 'int8' and len(quantised.run(0)[0].pred_instances)
    expected, found = (one.run(0)[0].pred_instances for one in (contestant, way))
    assert len(found.masks) == 5
    torch.testing.assert_close(found.bboxes, expected.bboxes, atol=0.05, rtol=0)


def test_of_other_models_nothing(calibrated) -> None:
    contestant, _ = calibrated('YOLACT', 5)
    assert list(exported_ways(contestant, small_config('YOLACT', 5), ('onnxruntime',))) == []
