"""The panoptic model, TensorMask and ShapeMask on six photographs of COCO, through the commands that users run.

Models start from random weights and train BN, since ImageNet's weights may be out of reach.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.evaluation.functional import INSTANCE_OFFSET
from pycocotools.coco import COCO

from centermask import CenterMaskVisualizer
from centermask.datasets.coco_panoptic import (
    STUFF,
    THINGS,
    PanopticAnnotations,
    categories_of,
    write_panoptic,
    write_panoptic_json,
)
from centermask.engine.cli import run

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
MIM = str(Path(sys.executable).with_name('mim'))
BATCH = 2
OPTIONS = [
    *(f'model.backbone.{o}' for o in ('init_cfg=None', 'norm_eval=False', 'norm_cfg.requires_grad=True')),
    *('model.test_cfg.score_thr=0.001', 'model.test_cfg.max_per_img=10', 'randomness.seed=0'),
    *('train_cfg.max_iters=2', 'train_cfg.val_begin=9', 'default_hooks.logger.interval=1'),
    *(f'train_dataloader.{o}' for o in (f'batch_size={BATCH}', 'dataset.filter_cfg.filter_empty_gt=False')),
    *(f'{loader}_dataloader.{o}=False' for loader in ('train', 'test') for o in ('persistent_workers',)),
    *(f'{loader}_dataloader.num_workers=0' for loader in ('train', 'test')),
]


@pytest.fixture
def coco(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with the photographs in data/coco/, where the configs look for COCO."""
    annotations = tmp_path / 'data/coco/annotations'
    annotations.mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        (tmp_path / 'data/coco' / split).symlink_to(shared / 'data/coco6/images')
        (annotations / f'instances_{split}.json').symlink_to(shared / 'data/coco6/instances.json')
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'data/coco'


@pytest.fixture
def command(tools: Callable, capfd: pytest.CaptureFixture) -> Callable:
    """Run a tool, which must succeed."""

    def call(tool: str, *args: str | Path) -> None:
        CenterMaskVisualizer._instance_dict.clear()
        code = run(lambda: tools(tool)([*map(str, args)]))
        assert code == 0, ''.join(capfd.readouterr())[-3000:]

    return call


def _scale(train: str, side: int) -> list[str]:
    """Return options that resize images to a longer side."""
    scale = f'({side},{side})'
    return [f'train_dataloader.dataset.pipeline.2.{train}', f'test_dataloader.dataset.pipeline.1.scale={scale}']


def _train(config: str) -> dict[str, float]:
    """Return the losses of the last step of a training in the folder ``run``."""
    (log,) = Path('run').glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert [step['iter'] for step in steps] == [1, 2]
    losses = {key: value for key, value in steps[-1].items() if key.startswith('loss')}
    assert np.isfinite([*losses.values()]).all(), (config, losses)
    return losses


def _figures() -> dict[str, float]:
    """Return the figures of a test in the folder ``tested``."""
    (log,) = Path('tested').glob('*/*.json')
    return json.loads(log.read_text())


def _check_predictions(coco: Path) -> None:
    """The detections on all photographs are COCO results of the annotation file, and each is drawn."""
    truth = COCO(str(coco / 'annotations/instances_val2017.json'))
    for kind in ('bbox', 'segm'):
        found = truth.loadRes(f'predicted/predictions.{kind}.json')
        assert len(found.anns) > 0 and {entry['image_id'] for entry in found.anns.values()} <= truth.imgs.keys()
    assert len([*Path('predicted/vis').glob('*.jpg')]) == len(truth.imgs) == 6


def _make_panoptic(coco: Path) -> None:
    """Write panoptic files: the objects, crowds as such, on two kinds of stuff and unlabelled pixels."""
    folder, categories = coco / 'annotations', categories_of(THINGS, STUFF)
    labels = {category.id: label for label, category in enumerate(categories)}
    objects = COCO(str(folder / 'instances_val2017.json'))
    for split in ('train2017', 'val2017'):
        written = []
        for image in objects.imgs.values():
            panoptic = np.full((image['height'], image['width']), len(categories))
            panoptic[20:], panoptic[image['height'] // 2 :] = len(THINGS) + 39, len(THINGS) + 30
            for number, entry in enumerate(objects.loadAnns(objects.getAnnIds(image['id'])), start=1):
                panoptic[objects.annToMask(entry) > 0] = labels[entry['category_id']] + INSTANCE_OFFSET * number
            written.append(write_panoptic(panoptic, image, categories, folder / f'panoptic_{split}'))
        write_panoptic_json(folder / f'panoptic_{split}.json', [*objects.imgs.values()], written, categories)


@pytest.mark.slow
def test_panoptic(coco: Path, command: Callable) -> None:
    """Semantic PNGs, a training by mim, PQ and mIoU of a test, panoptic predictions."""
    _make_panoptic(coco)
    pngs = coco / 'annotations/panoptic_train2017'
    command('make_semantic_masks', f'{pngs}.json', pngs, coco / 'panoptic_stuff_train2017')
    config = CONFIGS / 'panoptic-centermask-star_r50_fpn_3x_coco.py'
    options = [*OPTIONS, *_scale('scales=[(128,128)]', 128)]
    trained = subprocess.run(
        [MIM, 'train', 'mmdet', config, '--work-dir', 'run', '--cfg-options', *options], capture_output=True, text=True
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert _train('panoptic')['loss_seg'] > 0
    options += ['model.panoptic_fusion.score_thr=0.001', 'model.panoptic_fusion.stuff_area_limit=64']
    command('test', config, 'run/iter_2.pth', '--work-dir', 'tested', '--cfg-options', *options)
    wanted = {'coco/bbox_mAP', 'coco/segm_mAP', 'coco_panoptic/PQ', 'coco_panoptic/PQ_st', 'semantic/mIoU'}
    assert wanted <= _figures().keys()
    command('predict', coco / 'val2017', config, 'run/iter_2.pth', '--out-dir', 'predicted', '--cfg-options', *options)
    _check_predictions(coco)
    found = PanopticAnnotations('predicted/predictions.panoptic.json', 'predicted/predictions.panoptic')
    for number in found.image_ids():
        numbers, segments = found.read(number)
        assert segments and set(np.unique(numbers)) - {0} == set(range(1, len(segments) + 1))
    drawn, image = (cv2.imread(str(path / '000000000089.jpg')) for path in (Path('predicted/vis'), coco / 'val2017'))
    assert drawn.shape[0] == image.shape[0] and (drawn[:, : image.shape[1]] != image).any(-1).mean() > 0.5


@pytest.mark.slow
def test_tensormask(coco: Path, command: Callable) -> None:
    config = CONFIGS / 'baselines/tensormask_r50_fpn_1x_coco.py'
    options = [*OPTIONS, *_scale('scale=(128,128)', 128)]
    command('train', config, '--work-dir', 'run', '--cfg-options', *options)
    assert _train('TensorMask').keys() == {'loss', 'loss_cls', 'loss_bbox', 'loss_mask'}
    command('test', config, 'run/iter_2.pth', '--work-dir', 'tested', '--cfg-options', *options)
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= _figures().keys()
    command('predict', coco / 'val2017', config, 'run/iter_2.pth', '--out-dir', 'predicted', '--cfg-options', *options)
    _check_predictions(coco)


@pytest.mark.slow
def test_shapemask(coco: Path, command: Callable) -> None:
    """With priors that the command makes of the photographs' objects."""
    command('make_shape_priors', coco / 'annotations/instances_train2017.json', coco / 'shape_priors.npy')
    config = CONFIGS / 'baselines/shapemask_r101_fpn_2x_coco.py'
    options = [*OPTIONS, *_scale('scale=(128,128)', 128)]
    command('train', config, '--work-dir', 'run', '--cfg-options', *options)
    losses = {'loss', 'loss_cls', 'loss_bbox', 'loss_prior', 'loss_coarse', 'loss_fine'}
    assert _train('ShapeMask').keys() == losses
    command('test', config, 'run/iter_2.pth', '--work-dir', 'tested', '--cfg-options', *options)
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= _figures().keys()
    command('predict', coco / 'val2017', config, 'run/iter_2.pth', '--out-dir', 'predicted', '--cfg-options', *options)
    _check_predictions(coco)
