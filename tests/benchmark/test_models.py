"""Ways of running a model."""

import pytest
from helpers.small_contestants import small_config

from centermask.benchmark.models import SHIPPED, Contestant, other_ways
from centermask.tables.measure import build

COMPILED = {
    'star': {'backbone', 'neck', 'bbox_head', 'roi_head.mask_head', 'roi_head.mask_iou_head'},
    'Mask R-CNN': {'backbone', 'neck', 'rpn_head', 'roi_head.bbox_head', 'roi_head.mask_head'},
    'YOLACT': {'backbone', 'neck', 'bbox_head', 'mask_head'},
}


@pytest.mark.parametrize('kind', COMPILED)
def test_compiled_parts(kind: str) -> None:
    """Also those of the mask branch; the model as shipped stays as it is."""
    shipped = Contestant('small', SHIPPED, build(small_config(kind, 5), 'cpu'), [], 'tensor')
    (compiled,) = other_ways(shipped, compiled=True)
    parts = [
        {name for name, part in one.model.named_modules() if part._compiled_call_impl is not None}
        for one in (shipped, compiled)
    ]
    assert parts == [set(), COMPILED[kind]]
