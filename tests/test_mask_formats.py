"""Masks as a tensor and run-length encoded, in all that reads them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_model import noise_image, sample, small_model
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.runner import Runner

from centermask import CenterMask
from centermask.engine.configs import build_runner
from centermask.engine.inferencer import CenterMaskInferencer
from centermask.structures.rle_masks import RLEMasks

FORMATS = ('tensor', 'rle')


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_same_masks(recipe: str) -> None:
    """Of two images of different sizes; one more finds nothing."""
    sizes = [(96, 128), (80, 100), (64, 64)]
    results = []
    for mask_format in FORMATS:
        model = small_model(recipe, {'test_cfg.mask_format': mask_format, 'test_cfg.score_thr': 0.0})
        for size in sizes:
            batch = dict(inputs=[noise_image(*size)], data_samples=[sample(*size, scale_factor=(0.5, 0.4))])
            batch['data_samples'][0].set_metainfo(dict(ori_shape=(200, 256)))
            model.test_cfg.score_thr = model.bbox_head.test_cfg.score_thr = 2.0 if size == (64, 64) else 0.0
            results.append(model.test_step(batch)[0].pred_instances)
    assert [len(found) > 0 for found in results] == [True, True, False] * 2
    for found, encoded in zip(results[:3], results[3:], strict=True):
        assert found.masks.dtype == torch.bool and found.masks.shape == (len(found), 200, 256)
        assert isinstance(encoded.masks, RLEMasks) and encoded.masks.shape == found.masks.shape
        assert torch.equal(encoded.masks.cpu(), found.masks)
        assert torch.equal(encoded.mask_scores, found.mask_scores)
    assert results[0].masks.any()


def test_inferencer_of_mmdetection(tiny_config: Path, tiny_run: Path) -> None:
    """It has the tensor by default; its images and its JSON are the same with RLE."""
    found, image = [], str(next(tiny_config.parent.glob('shapes/val/images/*')))
    for options in ({}, {'model.test_cfg.mask_format': 'rle'}):
        cfg = Config.fromfile(tiny_config)
        cfg.merge_from_dict(options)
        inferencer = DetInferencer(cfg, str(tiny_run / 'iter_2.pth'), 'cpu', show_progress=False)
        np.random.seed(0)
        found.append(inferencer(image, return_vis=True, pred_score_thr=0))
        (sample,) = inferencer(image, return_datasamples=True)['predictions']
        assert isinstance(sample.pred_instances.masks, RLEMasks if options else torch.Tensor)
        nothing = inferencer(np.zeros((160, 160, 3), np.uint8), return_vis=True)
        assert len(nothing['predictions']) == 1
    tensor, rle = found
    assert tensor['predictions'] == rle['predictions'] and len(rle['predictions'][0]['masks']) > 0
    difference = np.abs(tensor['visualization'][0].astype(int) - rle['visualization'][0])
    assert difference.max() <= len(rle['predictions'][0]['masks'])  # rounding of one mask on the other


def test_our_inferencer_has_rle(tiny_config: Path, tiny_run: Path) -> None:
    cfg, image = Config.fromfile(tiny_config), str(next(tiny_config.parent.glob('shapes/val/images/*')))
    theirs = DetInferencer(cfg, str(tiny_run / 'iter_2.pth'), 'cpu', show_progress=False)(image)['predictions'][0]
    inferencer = CenterMaskInferencer(Config.fromfile(tiny_config), str(tiny_run / 'iter_2.pth'), 'cpu')
    assert inferencer.model.roi_head.test_cfg['mask_format'] == 'rle'
    ours = inferencer([image])['predictions'][0]
    assert theirs == {key: value for key, value in ours.items() if key != 'mask_scores'}


@pytest.mark.parametrize('asked', [None, 'tensor'])
def test_evaluation_has_rle_unless_the_config_says_otherwise(tiny_config: Path, tmp_path: Path, asked: str) -> None:
    cfg = Config.fromfile(tiny_config)
    cfg.work_dir = str(tmp_path)
    if asked:
        cfg.model.test_cfg.mask_format = asked
    runner: Runner = build_runner(cfg)
    assert isinstance(runner.model, CenterMask)
    assert runner.test_loop is not None
    assert runner.model.roi_head.test_cfg.get('mask_format') == (asked or 'rle')


@pytest.mark.parametrize('augmented', [(), ('--tta',)], ids=['once', 'augmented'])
def test_evaluation(
    tools: Callable, tiny_config: Path, tiny_run: Path, tmp_path: Path, augmented: tuple[str, ...]
) -> None:
    """``tools/test.py --out --show-dir``: the same AP, file and images."""
    logs, files, images = [], [], []
    for mask_format in FORMATS:
        work_dir, out = tmp_path / mask_format, tmp_path / f'{mask_format}.pkl'
        options = ['--work-dir', str(work_dir), '--out', str(out), '--show-dir', 'shown', *augmented]
        name = 'model.test_cfg.mask_format'
        tools('test')(
            [str(tiny_config), str(tiny_run / 'iter_2.pth'), *options, '--cfg-options', f'{name}={mask_format}']
        )
        (log,) = work_dir.glob('*/2*.json')
        logs.append([part for part in log.read_text().split(', ') if 'mAP' in part])
        files.append([sample['pred_instances'] for sample in pickle.loads(out.read_bytes())])
        images.append(sorted(path.name for path in work_dir.glob('*/shown/*')))
    assert logs[0] == logs[1] and len(logs[0]) == 12
    assert len(files[0]) == len(files[1]) == 3
    for of_tensor, of_rle in zip(*files, strict=True):
        assert of_tensor['masks'] == of_rle['masks']
        assert all(torch.equal(of_tensor[key], of_rle[key]) for key in ('bboxes', 'scores', 'mask_scores'))
    assert images[0] == images[1] and len(images[0]) == 3
