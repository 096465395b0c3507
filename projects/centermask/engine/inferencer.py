"""Inference on single images and folders, as MMDetection's ``DetInferencer``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.visualization import Visualizer
from torch import nn

from centermask.checkpoints.loading import check_match, count_classes, load_weights, read_checkpoint
from centermask.datasets.images import MAX_PIXELS, find_images, inspect_image
from centermask.datasets.packing import pack_all_resizes
from centermask.engine.rle_results import give_rle_masks
from centermask.export.exported_detector import ExportedCenterMask, warn_of_another_config
from centermask.export.runtime import is_exported
from centermask.panoptic_centermask import PanopticCenterMask
from centermask.structures.rle_masks import RLEMasks
from centermask.utils.errors import InputError, config_errors


class CenterMaskInferencer(DetInferencer):
    """MMDetection's inferencer with a strictly loaded checkpoint, and with mask scores among its results.

    Args:
        model: config.
        weights: checkpoint, or a file that tools/export.py wrote.
        device: torch's name of it, by default the GPU where there is one.
        mask_format: ``'rle'``, :class:`RLEMasks`, or ``'tensor'``, bool masks (N, H, W).

    Raises:
        InputError: the model, the pipeline or the visualizer can't be built, or the checkpoint can't be read or used.
    """

    def __init__(
        self, model: Config, weights: str, device: str | None = None, mask_format: Literal['rle', 'tensor'] = 'rle'
    ) -> None:
        self.mask_format = mask_format
        with config_errors(model.filename, 'test_dataloader or visualizer'):
            super().__init__(model, weights, device, show_progress=False)

    def _init_model(self, cfg: Any, weights: str | None, device: str = 'cpu') -> nn.Module:
        source = str(weights)
        if is_exported(source):
            exported = ExportedCenterMask(source, test_cfg=dict(mask_format=self.mask_format))
            warn_of_another_config(cfg, exported.exported.metadata, source)
            exported.cfg = cfg
            return exported.eval()
        with config_errors(cfg.filename):
            model = MODELS.build(cfg.model)
        checkpoint = read_checkpoint(source, panoptic=isinstance(model, PanopticCenterMask))
        check_match(load_weights(model, checkpoint['state_dict']), source, model)
        meta, data = checkpoint.get('meta', {}), cfg.test_dataloader.dataset
        of_config = {**DATASETS.get(data.type).METAINFO, **data.get('metainfo', {})}
        counts = {'classes': count_classes(model)}
        if semantic_head := getattr(model, 'semantic_head', None):
            counts['stuff_classes'] = semantic_head.num_stuff_classes
        names = {}
        for key, count in counts.items():
            found = class_names(meta.get('dataset_meta'), count, key) or class_names(of_config, count, key)
            if found is None:
                raise InputError(
                    f'Neither {source} nor {cfg.filename} names the {count} {key} of the model: set '
                    f'test_dataloader.dataset.metainfo.{key} in the config.'
                )
            names[key] = found
        checkpoint['meta'] = {**meta, 'dataset_meta': names}
        self._load_weights_to_model(model, checkpoint, cfg)
        if self.mask_format == 'rle':
            give_rle_masks(model)
        model.cfg = cfg
        return model.to(device).eval()

    def _init_pipeline(self, cfg: Any) -> Compose:
        data = cfg.test_dataloader.dataset
        data.pipeline = pack_all_resizes(data.pipeline)
        return super()._init_pipeline(cfg)

    def _init_collate(self, cfg: Any) -> Callable:
        return pseudo_collate  # MMEngine's, which asks a registry that MMDetection lacks first, and warns

    def _init_visualizer(self, cfg: Any) -> Visualizer:
        cfg.visualizer.pop('vis_backends', None)  # they record a training and ask for its folder
        return super()._init_visualizer(cfg)

    def predict(
        self,
        images: str | Path | np.ndarray | Sequence[str | Path | np.ndarray],
        batch_size: int = 1,
        max_pixels: int = MAX_PIXELS,
    ) -> list[DetDataSample]:
        """Return the detections of each image: ``pred_instances`` with bboxes, scores, labels, masks and mask_scores.

        Args:
            images: files or addresses, arrays (H, W, 3) of bytes in BGR, or one of these; also a folder, whose images
                are taken by their names, those in its folders too.
            batch_size: number of images that are computed together.
            max_pixels: the most pixels of a file to decode.

        Raises:
            InputError: a file can't be used, or an address gives no image; none is predicted.
        """
        if isinstance(images, str) and not images:
            raise InputError('The name of the image is empty: give a file, a folder or an address.')
        if isinstance(images, Path) or (isinstance(images, str) and '://' not in images):
            images = find_images(str(images))
        given = [images] if isinstance(images, str | Path | np.ndarray) else images
        inputs = [str(image) if isinstance(image, Path) else image for image in given]
        for image in inputs:
            if isinstance(image, str) and '://' not in image:
                inspect_image(image, max_pixels)
        addresses = [image for image in inputs if isinstance(image, str) and '://' in image]
        try:
            return self(inputs, batch_size, return_datasamples=True)['predictions']
        except (AssertionError, OSError) as error:  # of MMCV, which decodes nothing, and of urllib
            if not addresses:
                raise
            raise InputError(f'No image comes from {" or ".join(addresses)} ({error}): check the address.') from error

    def pred2dict(self, data_sample: DetDataSample, pred_out_dir: str = '') -> dict:
        """Return the result with ``mask_scores``, by which masks rank; masks that come run-length encoded stay so.

        It has no panoptic map, for which MMDetection needs panopticapi: :class:`PanopticResults` writes it.
        """
        data_sample = data_sample.new()
        if 'pred_panoptic_seg' in data_sample:
            del data_sample.pred_panoptic_seg
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


def class_names(metainfo: Any, count: int, key: str = 'classes') -> tuple[str, ...] | None:
    """Return the names of classes in a data set's metainfo; None unless there are ``count`` (0: any number)."""
    metainfo = metainfo if isinstance(metainfo, Mapping) else {}
    names = metainfo.get(key, metainfo.get(key.upper()))  # MMDetection 2 wrote capitals
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if count in (0, len(names)) else None


def require_device(name: str) -> None:
    """Raise an :class:`InputError` where torch has no such device."""
    try:
        torch.empty(1, device=name).item()
    except (AssertionError, RuntimeError) as error:
        raise InputError(f'The device {name} is not on this machine: give cpu, or cuda with a GPU.') from error
