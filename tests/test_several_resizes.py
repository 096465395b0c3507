"""Test pipelines that resize images several times or never: detections are in pixels of the original image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.structures import InstanceData

from centermask.datasets.packing import pack_all_resizes
from centermask.engine.inferencer import CenterMaskInferencer
from centermask.engine.runner import CenterMaskRunner
from centermask.export.metadata import describe_resizing


def _ours(*scale: int) -> dict:
    return dict(type='Resize', _scope_='centermask', scale=scale, keep_ratio=True)


def _theirs(*scale: int) -> dict:
    return dict(type='Resize', scale=scale, keep_ratio=True)


FLIP = dict(type='RandomFlip', prob=1.0)
PAD = dict(type='Pad', size_divisor=100)
PACK = dict(type='PackDetInputs')
# The images have 160×160 pixels. In all pipelines but the first they have 128×128 then, since a resize to the size that
# an image has changes nothing. The numbers are the factor.
PIPELINES: dict[str, tuple[list[dict], float]] = {
    'never': ([], 1.0),
    'once': ([_ours(128, 128)], 0.8),
    'ours twice': ([_ours(128, 128), _ours(128, 128)], 0.8),
    'theirs last': ([_ours(128, 128), _theirs(128, 128)], 0.8),
    'ours last': ([_theirs(200, 200), _ours(64, 64)], 0.4),
    'theirs twice': ([_theirs(240, 240), _theirs(80, 80)], 0.5),
    'by factors': ([dict(type='Resize', scale_factor=0.5), dict(type='Resize', scale_factor=0.5)], 0.25),
    'flipped and padded': ([_theirs(240, 240), FLIP, _theirs(80, 80), PAD], 0.5),
}


@pytest.fixture
def image(tiny_config: Path) -> str:
    return str(next((tiny_config.parent / 'shapes/val/images').iterdir()))


@pytest.mark.parametrize('case', PIPELINES)
def test_factors_multiply(case: str, image: str) -> None:
    steps, factor = PIPELINES[case]
    pipeline = pack_all_resizes([dict(type='LoadImageFromFile'), *steps, PACK])
    meta = Compose(pipeline)(dict(img_path=image, img_id=0))['data_samples'].metainfo
    assert meta['scale_factor'] == pytest.approx((factor, factor), abs=1e-6)


@pytest.fixture
def detect(tiny_config: Path) -> Callable[..., InstanceData]:
    """A function that detects in the first image of the tiny config, after these steps; in views of them with TTA."""

    def call(*steps: dict, views: bool = False) -> InstanceData:
        cfg = Config.fromfile(tiny_config)
        if views:
            steps = (dict(type='TestTimeAug', transforms=[[step] for step in [*steps, PACK]]),)
        loading = dict(type='LoadImageFromFile')
        cfg.test_dataloader.dataset.pipeline = [loading, *steps] if views else [loading, *steps, PACK]
        torch.manual_seed(0)
        model = MODELS.build(dict(cfg.tta_model, module=cfg.model) if views else cfg.model).eval()
        with torch.no_grad():
            return model.test_step(next(iter(CenterMaskRunner.build_dataloader(cfg.test_dataloader))))[0].pred_instances

    return call


@pytest.mark.parametrize('views', [False, True])
def test_detections_of_the_same_pixels(views: bool, detect: Callable) -> None:
    once = detect(_ours(128, 128), views=views)
    assert len(once) > 0 and once.masks.shape[1:] == (160, 160)
    assert torch.equal(detect(*PIPELINES['theirs last'][0], views=views).bboxes, once.bboxes)
    assert torch.equal(detect(views=views).bboxes, detect(_ours(160, 160), views=views).bboxes)


def test_predictions(tiny_config: Path, tiny_run: Path, image: str) -> None:
    boxes = []
    for steps in ([_ours(128, 128)], PIPELINES['theirs last'][0]):
        cfg = Config.fromfile(tiny_config)
        cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), *steps, PACK]
        inferencer = CenterMaskInferencer(cfg, str(tiny_run / 'iter_2.pth'), 'cpu')
        boxes.append(inferencer(image)['predictions'][0]['bboxes'])
    assert boxes[0] == boxes[1] and boxes[0]


def test_metadata_of_exported_files() -> None:
    assert describe_resizing([_ours(100, 60)]) == ([100, 60], 'centermask.Resize')
    assert describe_resizing([_ours(60, 100), _theirs(80, 50)]) == ([[100, 60], [80, 50]], 'centermask.Resize, Resize')
    assert describe_resizing([PACK]) == ([], '')
