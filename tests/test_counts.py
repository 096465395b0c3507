"""What an inference costs besides arithmetic: operator calls and host waits of both recipes, counted, not timed."""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.read_configs import read_config
from helpers.small_model import picture, sample
from mmdet.registry import MODELS

from centermask import CenterMask
from centermask.benchmark.counting import count

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
SIZE = (128, 160)
NAMES = 'centermask-star_r50_fpn_3x_coco', 'centermask_r50_fpn_1x_coco'
# NMS, the candidates above the threshold, levels of the RoIs, the result.
WAITS = {'mmcv.nms': 1, 'nonzero': 1, 'cpu': 2}
# MMEngine asks a tensor of sizes, which is on the host anyway, whether pictures are padded, and reads by how much.
PADDED, NOT_PADDED = {'_local_scalar_dense': 1, 'tolist': 1}, {'_local_scalar_dense': 1}
MOST_CALLS = 560  # 528 and 519 when this was written


def _model(name: str, **test_cfg: Any) -> CenterMask:
    torch.manual_seed(0)
    config = read_config(name).model
    config.backbone.init_cfg = None
    config.test_cfg.update(score_thr=0.0, nms_pre=100, **test_cfg)
    model = MODELS.build(config)
    torch.nn.init.constant_(model.bbox_head.conv_reg.bias, 2.0)  # boxes of some size
    return model.eval()


@pytest.mark.parametrize('name', NAMES)
def test_counts_of_an_image(name: str) -> None:
    model = _model(name)
    found = {}
    for mask_format in ('tensor', 'rle'):
        model.roi_head.test_cfg['mask_format'] = mask_format
        for most in (50, 10):
            model.bbox_head.test_cfg['max_per_img'] = most
            with torch.no_grad():
                batch = model.data_preprocessor(dict(inputs=[picture(*SIZE)], data_samples=[sample(*SIZE)]), False)
                model(**batch, mode='predict')  # the fused copy is built
                with count() as cost:
                    (result,) = model(**batch, mode='predict')
            assert 0 < len(result.pred_instances) <= most
            found[mask_format, most] = cost
    for cost in found.values():
        assert dict(cost.by_operator) == WAITS
        assert cost.calls <= MOST_CALLS
    assert len({cost.calls for cost in found.values()}) <= 2  # pasting takes no operators, however many masks there are


@pytest.mark.parametrize('name', NAMES)
def test_waits_from_the_picture_to_its_result(name: str) -> None:
    """At most six, whatever the picture: of its own size or padded, with boxes outside it, or with nothing found."""
    model = _model(name)
    boxes = model.bbox_head.conv_reg.bias
    for size, padding in ((SIZE, NOT_PADDED), ((100, 150), PADDED)):
        for least, reach in ((0.0, 2.0), (0.0, -9.0), (1.0, 2.0)):
            model.bbox_head.test_cfg['score_thr'] = least
            torch.nn.init.constant_(boxes, reach)
            with torch.no_grad():
                data = dict(inputs=[picture(*size)], data_samples=[sample(*size)])
                model.test_step(copy.deepcopy(data))  # the fused copy is built
                with count() as cost:
                    model.test_step(data)
            waits = Counter(WAITS) + Counter(padding)
            assert cost.by_operator <= waits and cost.waits <= 6
            if not least:
                assert cost.by_operator == waits
