"""Detections on pictures that belong to no data set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.apis import DetInferencer
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization import get_palette
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.utils import ProgressBar
from mmengine.visualization import Visualizer
from torch import nn

from centermask.checkpoints.loading import count_classes, load_weights, read_checkpoint, require_fit
from centermask.datasets.images import unreadable
from centermask.engine.cli import require_writable
from centermask.export.exported_detector import ExportedCenterMask, warn_of_another_config
from centermask.export.runtime import is_exported
from centermask.roi_head import CenterMaskRoIHead
from centermask.structures.rle_masks import RLEMasks
from centermask.utils.atomic_io import atomic_write, atomic_write_text
from centermask.utils.errors import InputError, RunError, config_errors

# COCO's ids of its 80 categories run from 1 to 90 with these left out.
COCO_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


class CenterMaskInferencer(DetInferencer):
    """MMDetection's inferencer with a strictly loaded checkpoint, and with mask scores among its results.

    Args:
        model: config.
        weights: checkpoint, or a file that tools/export.py made of it.
        device: torch's name of it, by default the GPU where there is one.

    Raises:
        InputError: the model, the pipeline or the visualizer can't be built, or the checkpoint can't be read or used.
    """

    def __init__(self, model: Config, weights: str, device: str | None = None) -> None:
        with config_errors(model.filename, 'test_dataloader or visualizer'):
            super().__init__(model, weights, device, show_progress=False)

    def _init_model(self, cfg: Any, weights: str | None, device: str = 'cpu') -> nn.Module:
        if is_exported(str(weights)):
            exported = ExportedCenterMask(str(weights), test_cfg=dict(mask_format='rle'))
            warn_of_another_config(cfg, exported.exported.metadata, str(weights))
            exported.cfg = cfg
            return exported.eval()
        checkpoint = read_checkpoint(str(weights))
        with config_errors(cfg.filename):
            model = MODELS.build(cfg.model)
        require_fit(load_weights(model, checkpoint['state_dict']), str(weights), model)
        meta, count = checkpoint.get('meta', {}), count_classes(model)
        named = _usable(meta.get('dataset_meta'), count)
        if named is None:  # a file of weights alone, or of which something else is wrong: the config names the classes
            data = cfg.test_dataloader.dataset
            named = {**DATASETS.get(data.type).METAINFO, **data.get('metainfo', {})}
            if len(named.get('classes', ())) < count:
                raise InputError(
                    f'Neither {weights} nor {cfg.filename} names the {count} classes of the model: set '
                    'test_dataloader.dataset.metainfo.classes in the config.'
                )
        checkpoint['meta'] = {**meta, 'dataset_meta': named}
        self._load_weights_to_model(model, checkpoint, cfg)
        if isinstance(getattr(model, 'roi_head', None), CenterMaskRoIHead):
            model.roi_head.test_cfg['mask_format'] = 'rle'
        model.cfg = cfg
        return model.to(device).eval()

    def _init_pipeline(self, cfg: Any) -> Compose:
        return Compose(get_test_pipeline_cfg(cfg))

    def _init_collate(self, cfg: Any) -> Callable:
        return pseudo_collate

    def _init_visualizer(self, cfg: Any) -> Visualizer:
        cfg.visualizer.pop('vis_backends', None)  # they record a training and ask for its folder
        return super()._init_visualizer(cfg)

    def _inputs_to_list(self, inputs: Any) -> list:
        return [{'img_path': str(path), 'img_id': i} for i, path in enumerate(inputs)]

    def pred2dict(self, data_sample: DetDataSample, pred_out_dir: str = '') -> dict:
        """Also write ``mask_scores``, by which masks rank. Masks that come encoded are taken as they are."""
        masks = data_sample.pred_instances.get('masks')
        if isinstance(masks, RLEMasks):
            del data_sample.pred_instances.masks
        result = super().pred2dict(data_sample, pred_out_dir)
        if isinstance(masks, RLEMasks):
            data_sample.pred_instances.masks = masks
            result['masks'] = [{**rle, 'counts': rle['counts'].decode()} for rle in masks]
        if 'mask_scores' in data_sample.pred_instances:
            result['mask_scores'] = data_sample.pred_instances.mask_scores.tolist()
        return result


def _usable(metainfo: Any, count: int) -> dict | None:
    """What a file says of its data, without colours that can't be drawn; None where it doesn't name so many classes."""
    if not isinstance(metainfo, dict) or not all(isinstance(key, str) for key in metainfo):
        return None
    metainfo = {key.lower(): value for key, value in metainfo.items()}  # they were in capitals once
    classes = metainfo.get('classes')
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        return None
    if count not in (0, len(classes)):
        return None
    colours = np.full(0, -1)
    with suppress(Exception):  # whatever the first wrong one leads to
        colours = np.array(get_palette(metainfo.get('palette'), len(classes)), float)
    drawn = colours.shape[1:] == (3,) and ((colours >= 0) & (colours <= 255)).all()
    return metainfo if drawn else {key: value for key, value in metainfo.items() if key != 'palette'}


def require_device(name: str) -> None:
    """Raise an :class:`InputError` where torch has no such device."""
    try:
        torch.empty(1, device=name).item()
    except (AssertionError, RuntimeError) as error:
        raise InputError(f'--device {name} is not on this machine: give cpu, or cuda where there is a GPU.') from error


def require_apart(images: Sequence[Path], out_dir: Path) -> None:
    """Raise an :class:`InputError` where pictures would be written among the images, perhaps in place of one."""
    pictures = os.path.realpath(out_dir / 'vis')
    for image in images:
        if pictures in (os.path.realpath(image.parent), os.path.dirname(os.path.realpath(image))):
            raise InputError(f'--out-dir {out_dir}: pictures go to its folder vis, where {image} is: name another one.')


def predict(images: Sequence[Path], inferencer: CenterMaskInferencer, out_dir: Path, score_thr: float) -> list[Path]:
    """Write each picture with its detections, and all detections as COCO results.

    Boxes are scored by the detector and masks by its mask scoring head. The JSON files hold every detection; entries
    name the file and the class beside the ids. Images whose names are numbers, as COCO's are, have these as ids, others
    count from 1; so do classes, unless they are COCO's own.

    Args:
        images: paths.
        inferencer: what detects.
        out_dir: folder of ``vis/*``, ``predictions.bbox.json`` and ``predictions.segm.json``.
        score_thr: the least score of a detection that is drawn.

    Returns:
        The paths of the two JSON files.

    Raises:
        InputError: the folder can't be written to, or images are in its ``vis``.
        RunError: an image can't be read.
    """
    require_apart(images, out_dir)
    require_writable(out_dir / 'vis', '--out-dir')
    classes = inferencer.model.dataset_meta['classes']
    category_ids = list(range(1, len(classes) + 1))
    if tuple(classes) == CocoDataset.METAINFO['classes']:
        category_ids = [i for i in range(1, 91) if i not in COCO_UNUSED_IDS]
    named_by_id = all(path.stem.isdecimal() for path in images) and len({int(p.stem) for p in images}) == len(images)

    boxes: list[dict] = []
    masks: list[dict] = []
    progress = ProgressBar(len(images))
    for number, path in enumerate(images, start=1):
        found, picture = _detect(inferencer, path, score_thr)
        suffix = '' if path.suffix.lower() in ('.jpg', '.jpeg', '.png') else '.png'
        atomic_write(out_dir / 'vis' / f'{path.name}{suffix}', partial(mmcv.imwrite, picture))
        for i, label in enumerate(found['labels']):
            x1, y1, x2, y2 = found['bboxes'][i]
            what = {
                'image_id': int(path.stem) if named_by_id else number,
                'file_name': path.name,
                'category_id': category_ids[label],
                'category_name': classes[label],
            }
            boxes.append({**what, 'bbox': [x1, y1, x2 - x1, y2 - y1], 'score': found['scores'][i]})
            scores = found.get('mask_scores', found['scores'])
            if 'masks' in found:  # FCOS alone has none
                masks.append({**what, 'segmentation': found['masks'][i], 'score': scores[i]})
        progress.update()
    print()
    written = []
    for kind, results in (('bbox', boxes), ('segm', masks)):
        written.append(out_dir / f'predictions.{kind}.json')
        atomic_write_text(written[-1], json.dumps(results))
    return written


def _detect(inferencer: CenterMaskInferencer, path: Path, score_thr: float) -> tuple[dict, Any]:
    """One image's detections and the picture of them, in BGR."""
    try:
        results = inferencer([path], return_vis=True, pred_score_thr=score_thr)
    except Exception as error:
        try:
            LoadImageFromFile()({'img_path': str(path)})
        except Exception:
            raise RunError(unreadable(path)) from error
        raise
    return results['predictions'][0], results['visualization'][0][..., ::-1]
