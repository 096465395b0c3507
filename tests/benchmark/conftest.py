"""Small models, calibrated."""

from collections.abc import Callable

import pytest
import torch
from helpers.small_contestants import small_config
from mmengine.config import Config

from centermask.benchmark.calibration import calibrate
from centermask.benchmark.calibration_pictures import Found
from centermask.benchmark.models import SHIPPED, Contestant
from centermask.benchmark.pictures import as_batches, make_picture
from centermask.tables.measure import build


@pytest.fixture
def calibrated() -> Callable[..., tuple[Contestant, Found]]:
    """``calibrated(kind or config, detections, pictures=1, masks='tensor')``."""

    def make(config: str | Config, detections: int, pictures: int = 1, masks: str = 'tensor'):
        config = small_config(config, detections) if isinstance(config, str) else config
        torch.manual_seed(0)
        model = build(config, 'cpu')
        batches = as_batches(config, [make_picture(seed) for seed in range(pictures)])
        found = calibrate(model, batches, detections)
        return Contestant('small', SHIPPED, model, batches, masks), found

    return make
