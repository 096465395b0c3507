"""Rows of the paper's Tables 1 to 4: each distinct architecture trains a step and detects."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.fileio import load
from small_model import batch, picture, sample, square, without_gradient
from torch import Tensor, nn

from centermask import CenterMask, ScaleAdaptiveRoIExtractor

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
HEIGHT, WIDTH = 64, 96
# Of every size that 64 × 96 pixels allow, so that every level has something to learn or to pool.
OBJECTS = [square(0, 0, 0, 95, 63), square(79, 4, 6, 60, 60), square(40, 30, 20, 70, 44), square(7, 70, 40, 86, 56)]


def _model_config(row: str) -> Config:
    return Config.fromfile(CONFIGS / f'{row}_fpn_1x_coco.py').model


def _model(row: str) -> CenterMask:
    config = _model_config(row)
    config.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(config)
    nn.init.zeros_(model.bbox_head.conv_cls.bias)  # finds something untrained
    return model


LOSSES = ['loss_cls', 'loss_bbox', 'loss_centerness', 'loss_mask', 'loss_mask_iou']
# How many of these a row has.
ROWS = {
    'fcos_r50': 3,
    'centermask_r50-eq1': 4,
    'centermask_r50-eq2': 4,
    'centermask_r50-sam': 4,
    'centermask_r50': 5,
    'centermask_r50-p3-p7': 5,
    'centermask_r50-p3-p6': 5,
    'centermask_r50-p3-p4': 5,
}


@pytest.mark.parametrize('row', ROWS)
def test_trains_and_detects(row: str) -> None:
    model = _model(row).train()
    losses = model.loss(*batch(model, [picture(HEIGHT, WIDTH)], [sample(HEIGHT, WIDTH, OBJECTS)]))
    assert list(losses) == LOSSES[: ROWS[row]]
    assert all(loss.shape == () and loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert without_gradient(model) == []
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    # On levels without an object boxes learn nothing.
    assert not [name for name, g in gradients.items() if not g.any() and not name.startswith('bbox_head.scales.')]

    model.eval()
    with torch.no_grad():
        (result,) = model.predict(*batch(model, [picture(HEIGHT, WIDTH)], [sample(HEIGHT, WIDTH)]))
    found = result.pred_instances
    assert len(found) > 0
    masks = {3: set(), 4: {'masks'}, 5: {'masks', 'mask_scores'}}[ROWS[row]]
    assert set(found.keys()) == {'bboxes', 'scores', 'labels'} | masks


def test_fcos_alone_by_command(tiny_config: Path, tools: Callable[[str], Callable], tmp_path: Path) -> None:
    """Training, testing and predicting do without masks."""
    config, work_dir = tmp_path / 'fcos.py', tmp_path / 'run'
    config.write_text(
        f'_base_ = {str(tiny_config)!r}\nmodel = dict(roi_head=None)\n'
        "val_evaluator = dict(metric=['bbox'])\ntest_evaluator = val_evaluator\n"
    )
    tools('train')([str(config), '--work-dir', str(work_dir)])
    run = [str(config), str(work_dir / 'iter_2.pth')]
    for options in ([], ['--tta']):
        tools('test')([*run, *options, '--work-dir', str(tmp_path / 'test'), '--out', str(tmp_path / 'found.pkl')])
        found = [result['pred_instances'] for result in load(tmp_path / 'found.pkl')]
        assert sum(len(instances['bboxes']) for instances in found) > 0
        assert all('masks' not in instances for instances in found)
    out = tmp_path / 'out'
    images = tiny_config.parent / 'shapes/val/images'
    tools('predict')([str(images), *run, '--out-dir', str(out), '--device', 'cpu'])
    boxes, masks = (load(out / f'predictions.{kind}.json') for kind in ('bbox', 'segm'))
    assert len(boxes) > 0 and masks == []
    assert len(list((out / 'vis').iterdir())) == 3


# Levels


def _extractor(row: str) -> ScaleAdaptiveRoIExtractor:
    return MODELS.build(_model_config(row).roi_head.mask_roi_extractor)


def _boxes(*sizes: tuple[float, float]) -> Tensor:
    """RoIs that hold so many pixels each way, as the paper recipe counts them: 0 to 223 are 224."""
    return torch.tensor([[0.0, 10, 20, 10 + width - 1, 20 + height - 1] for width, height in sizes])


# Width, height, and the level by hand: sqrt(w h) < 224 gives P3 at most, < 448 P4, and from there on P5.
EQ1 = {
    (1, 1): 3,
    (32, 32): 3,
    (111, 111): 3,
    (112, 112): 3,  # exactly 3
    (223, 224): 3,
    (224, 224): 4,  # exactly 4
    (112, 448): 4,
    (56, 896): 4,
    (223, 225): 3,
    (447, 448): 4,
    (448, 448): 5,  # exactly 5
    (224, 896): 5,
    (895, 896): 5,
    (1333, 800): 5,  # 6 for Mask R-CNN, clamped
}


@pytest.mark.parametrize('repeats', [1, 8])  # torch computes long vectors by other code
def test_levels_of_eq1(repeats: int) -> None:
    extractor = _extractor('centermask_r50-eq1')
    levels = extractor.map_roi_levels(_boxes(*EQ1).repeat(repeats, 1), torch.tensor([800.0 * 1333])) + 3
    assert levels.tolist() == list(EQ1.values()) * repeats


def test_eq1_is_mask_rcnns() -> None:
    """MMDetection's own extractor, whose boxes are a pixel longer than these, and whose finest level is P3 here."""
    sides = torch.arange(1.0, 1500).repeat(2, 1).T
    rois = torch.cat([torch.zeros(len(sides), 3), sides], dim=1)
    theirs = SingleRoIExtractor(
        dict(type='RoIAlign', output_size=14), out_channels=256, featmap_strides=[8, 16, 32], finest_scale=112
    )
    extractor = _extractor('centermask_r50-eq1')
    expected = theirs.map_roi_levels(rois, 3)
    rois[:, 3:] -= 1
    assert torch.equal(extractor.map_roi_levels(rois, torch.ones(1)), expected)


# Of an image of 1024 × 1024: all of it, a little over a half, a half, a quarter, an eighth, a sixteenth, 224 × 224.
SIZES = [(1024, 1024), (1024, 513), (1024, 512), (512, 512), (512, 256), (256, 256), (224, 224)]


@pytest.mark.parametrize(
    'row, expected',
    [
        ('centermask_r50-p3-p7', [7, 7, 6, 5, 4, 3, 3]),
        ('centermask_r50-p3-p6', [6, 6, 5, 4, 3, 3, 3]),
        ('centermask_r50', [5, 5, 4, 3, 3, 3, 3]),
        ('centermask_r50-p3-p4', [4, 4, 3, 3, 3, 3, 3]),
        ('centermask_r50-eq2', [5, 5, 4, 3, 3, 3, 3]),
        ('centermask_r50-eq1', [5, 5, 5, 5, 4, 4, 4]),
    ],
)
def test_levels(row: str, expected: list[int]) -> None:
    """The box head reads P3 to P7 in all of them."""
    levels = _extractor(row).map_roi_levels(_boxes(*SIZES), torch.tensor([1024.0 * 1024])) + 3
    assert levels.tolist() == expected
    assert _model_config(row).bbox_head.strides == [8, 16, 32, 64, 128]
