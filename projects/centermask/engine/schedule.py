"""Fit a config to a folder of own data (``--data``): files, classes, heads and the length of the schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from centermask.datasets.coco import innermost
from centermask.datasets.coco_folder import CocoFolder, find_data
from centermask.engine.distributed import count_processes, is_first_process
from centermask.engine.fit_to_objects import fit_image_size, fit_limits
from centermask.utils.errors import InputError

COCO_IMAGES = 117_266  # of train2017 with objects, which the recipes' iterations are for
MIN_IMAGES = 24_000  # a schedule sees at least as many: 1500 iterations of 16
MIN_VALIDATION_INTERVAL = 0.1  # of the schedule
MAX_WARM_UP = 0.1  # of the schedule


def fit_config(cfg: Config, folder: Path, work_dir: Path, options: Mapping[str, Any], training: bool = True) -> None:
    """Point a config at a folder of data and, for training, scale its schedule; print both.

    Args:
        cfg: a config that reads COCO data, with its launcher, before ``--cfg-options`` are merged; changed in place.
        folder, work_dir, training: as :func:`centermask.datasets.coco_folder.find_data` takes them.
        options: the ``--cfg-options``. ``load_from``, ``train_cfg.max_iters`` and ``train_dataloader.batch_size``
            count here: no backbone is fetched, the schedule is scaled to these iterations, or to this batch.

    Raises:
        InputError: the folder or the config can't be used.
    """
    if 'semantic_head' in cfg.get('model', {}):
        raise InputError(
            f'--data: the model of {cfg.filename} is panoptic and learns semantic PNGs too: copy configs/'
            'panoptic-centermask-lite-star_v2-19-slim_custom.py and name your files in it.'
        )
    data = find_data(folder, work_dir, training)
    lines = [f'Data: {len(data.classes)} classes, {data.val.ann_file} to validate on.', *data.remarks]
    _use_data(cfg, data)
    _set_num_classes(cfg.model, len(data.classes))
    if options.get('load_from') and cfg.model.get('backbone', {}).get('init_cfg'):
        cfg.model.backbone.init_cfg = None
    lines += fit_limits(cfg, [split for split in (data.train, data.val) if split], options)
    lines += fit_image_size(cfg, data.train or data.val, options)  # in testing too
    if training and data.train:
        if not data.train.image_ids:
            raise InputError(
                f'--data: {data.train.ann_file} has no object that can be trained on, with a mask and a box: '
                'tools/check_dataset.py lists what is wrong with each.'
            )
        if absent := [name for name in data.classes if name not in data.train.objects]:
            lines.append(f'No object to learn from: {", ".join(absent)}.')
        lines.append(_scale_schedule(cfg, len(data.train.image_ids), options))
    if is_first_process():
        print('\n'.join(lines), flush=True)


def _use_data(cfg: Config, data: CocoFolder) -> None:
    for mode, split in {'train': data.train or data.val, 'val': data.val, 'test': data.val}.items():
        dataset = innermost(cfg.get(f'{mode}_dataloader', {}))
        if 'ann_file' not in dataset:
            raise InputError(
                f"--data: the config {cfg.filename} has no {mode}_dataloader.dataset that reads COCO's format: "
                'give one that has, such as those under configs/.'
            )
        dataset.update(
            data_root='',
            ann_file=str(split.ann_file),
            data_prefix=dict(img=f'{split.images}/'),
            metainfo=dict(classes=data.classes),
        )
        evaluators = cfg.get(f'{mode}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            evaluator.ann_file = str(split.ann_file)
    # Variables of the config file, which would be wrong where the config is saved.
    cfg.update({name: value for name, value in (('data_root', ''), ('classes', data.classes)) if name in cfg})


def _set_num_classes(model: dict, classes: int) -> None:
    """Set every ``num_classes`` of a model."""
    for key, value in model.items():
        if key == 'num_classes':
            model[key] = classes
        elif isinstance(value, dict):
            _set_num_classes(value, classes)


def _scale_schedule(cfg: Config, images: int, options: Mapping[str, Any]) -> str:
    """Scale a schedule to as many passes over this data as the recipe makes over COCO; return a line to print.

    Configs without ``auto_scale_lr.base_batch_size`` aren't for COCO and keep their length.
    """
    if 'max_iters' not in cfg.train_cfg:
        return 'The schedule counts in epochs and stays as it is.'
    old, base = cfg.train_cfg.max_iters, cfg.get('auto_scale_lr', {}).get('base_batch_size')
    batch = options.get('train_dataloader.batch_size', cfg.train_dataloader.batch_size) * count_processes(cfg.launcher)
    new, why = old, 'the config is not for COCO, so its length stays'
    if base:
        passes = old * base / COCO_IMAGES
        new = math.ceil(max(passes * images, MIN_IMAGES) / batch)
        why = f"{new * batch / images:.0f} passes over {images} images, the recipe's over COCO being {passes:.0f}"
        cfg.auto_scale_lr.enable = True
    if 'train_cfg.max_iters' in options:
        new, why = options['train_cfg.max_iters'], 'as --cfg-options says'
        if not isinstance(new, int) or new < 1:
            raise InputError(f'--cfg-options train_cfg.max_iters={new}: give a number of iterations, at least 1.')

    schedulers = cfg.get('param_scheduler') or []
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    warm_up = _scale_schedulers(schedulers, new / old, new, batch_ratio=base / batch if base else 1)
    interval = max(1, round(max(cfg.train_cfg.get('val_interval', 1) * new / old, MIN_VALIDATION_INTERVAL * new)))
    cfg.train_cfg.update(max_iters=new, val_interval=interval)
    hooks = cfg.get('default_hooks', {})
    if 'checkpoint' in hooks:
        hooks.checkpoint.interval = interval
    if 'logger' in hooks:
        hooks.logger.interval = max(1, min(hooks.logger.get('interval', 10), new // 20))
    rate = options.get('optim_wrapper.optimizer.lr', cfg.optim_wrapper.optimizer.lr)
    if options.get('auto_scale_lr.enable', base):
        rate *= batch / options.get('auto_scale_lr.base_batch_size', base)
    return (
        f'Schedule: {new} iterations of {batch} images ({why}), warm-up {warm_up}, '
        f'learning rate {rate:.3g}, validation and checkpoint every {interval}.'
    )


def _scale_schedulers(schedulers: list[dict], factor: float, total: int, batch_ratio: float) -> int:
    """Scale milestones, begins and ends in place; return the iterations of the warm-up, 0 if there is none.

    A warm-up keeps its number of images, but is at most a tenth of the training. One of a single iteration changes
    nothing: MMEngine's reach the full rate in their last iteration, so such a one would never.
    """
    warm_ups = [s for s in schedulers if s['type'] in ('LinearLR', 'ConstantLR') and s.get('begin', 0) == 0]
    ends = {s['end']: max(1, round(min(s['end'] * batch_ratio, MAX_WARM_UP * total))) for s in warm_ups}
    for scheduler in schedulers:
        if scheduler.get('by_epoch', True):
            continue
        for key in ('begin', 'end', 'T_max', 'step_size'):
            if scheduler.get(key):
                scheduler[key] = ends.get(scheduler[key]) or max(1, round(scheduler[key] * factor))
        if 'milestones' in scheduler:
            scheduler['milestones'] = [max(1, round(milestone * factor)) for milestone in scheduler['milestones']]
        if 'end' in scheduler:  # one without iterations begins after the training
            scheduler['end'] = max(scheduler['end'], scheduler.get('begin', 0) + 1)
    for warm_up in warm_ups:
        if warm_up['end'] == 1:
            warm_up['start_factor' if warm_up['type'] == 'LinearLR' else 'factor'] = 1.0
    return max((end for end in ends.values() if end > 1), default=0)
