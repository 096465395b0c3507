"""An exported file as a detector for MMEngine's runner and MMDetection's inferencer."""

from __future__ import annotations

import sys
from reprlib import repr as shorten
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as coco_mask
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import SampleList
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.boxes import clip_to_image, scale_factors
from centermask.export.metadata import Metadata, describe_resizing
from centermask.export.runtime import Detections, ExportedModel
from centermask.fast.malloc import large_buffers_kept
from centermask.mask_pasting import encode, paste
from centermask.structures.rle_masks import RLEMasks
from centermask.utils.errors import InputError


def use_exported_file(cfg: Config, file: str) -> None:
    """Make a config test an exported file instead of its model.

    Raises:
        InputError: the file can't be used.
    """
    cfg.model = ConfigDict(type='ExportedCenterMask', file=file, test_cfg=dict(mask_format='rle'))
    cfg.load_from = None
    ExportedModel(file)  # opened now, so that a file that can't be used is refused before the data are read


def warn_of_another_config(cfg: Config, metadata: Metadata, file: str) -> None:
    """Warn where an exported file differs from the config; only the config's resizing is used."""
    data = cfg.test_dataloader.dataset
    classes = data.get('metainfo', {}).get('classes') or DATASETS.get(data.type).METAINFO['classes']
    recipe = 'paper' if (cfg.model.get('bbox_head') or {}).get('legacy_boxes') else 'star'
    if cfg.model.get('type') == 'ExportedCenterMask':  # the config that a test of such a file leaves
        recipe = metadata.recipe
    pairs = {
        'classes': (list(metadata.classes), list(classes)),
        'recipe': (metadata.recipe, recipe),
        'resizing': ((metadata.scale, metadata.resize), describe_resizing(data.get('pipeline', []))),
    }
    different = [
        f'{name} {shorten(here)} (config: {shorten(there)})' for name, (here, there) in pairs.items() if here != there
    ]
    if different:
        print(
            f'warning: {file} was exported with another config than {cfg.filename}: {"; ".join(different)}. Images are '
            'resized by the config given, everything else is as exported.',
            file=sys.stderr,
        )


def require_no_model_options(options: dict) -> None:
    """Raise an :class:`InputError` where ``--cfg-options`` would change an exported model."""
    for key in options:
        if key.split('.')[0] == 'model':
            raise InputError(f"--cfg-options {key}: an exported file can't be changed, export the checkpoint with it.")


@MODELS.register_module()
class ExportedCenterMask(BaseDetector):
    """Detector that is run by ONNX Runtime or OpenVINO.

    Args:
        file, backend, threads: as in :class:`ExportedModel`.
        test_cfg: ``mask_format``, as of a CenterMask. The rest of the settings is fixed in the file.
    """

    def __init__(
        self, file: str, backend: str | None = None, threads: int | None = None, test_cfg: dict | None = None
    ) -> None:
        self.exported = ExportedModel(file, backend, threads)
        metadata = self.exported.metadata
        inside = metadata.preprocess
        super().__init__(
            data_preprocessor=dict(
                type='DetDataPreprocessor',
                mean=[0.0] * 3 if inside else metadata.mean,
                std=[1.0] * 3 if inside else metadata.std,
                bgr_to_rgb=False,
                pad_size_divisor=1 if inside else metadata.divisor,
            )
        )
        self.test_cfg = test_cfg or {}
        self.num_classes = len(metadata.classes)
        self.dataset_meta = {'classes': tuple(metadata.classes), 'palette': 'random'}

    @large_buffers_kept()
    def test_step(self, data: dict | tuple | list) -> list:
        """Detect with torch in one thread.

        The runtime's threads spin for a while after their work. Torch's second thread would wait for their core: up to
        50 ms for the little that torch does here.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().test_step(data)
        finally:
            torch.set_num_threads(threads)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Return the samples with ``pred_instances``: bboxes, scores, labels, masks and mask_scores."""
        images = batch_inputs.cpu().numpy()
        if self.exported.metadata.preprocess:
            images = images.transpose(0, 2, 3, 1).astype(np.uint8)
        sizes = np.array([sample.img_shape[:2] for sample in batch_data_samples])
        detections = zip(self.exported(images, sizes), batch_data_samples, strict=True)
        results = [self._instances(found, sample.metainfo, rescale) for found, sample in detections]
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _instances(self, found: Detections, meta: dict, rescale: bool) -> InstanceData:
        """Return one image's detections in pixels of the original image, or of the resized one without ``rescale``."""
        metadata, size = self.exported.metadata, meta['ori_shape' if rescale else 'img_shape'][:2]
        names = ('bboxes', 'labels', 'scores', 'mask_scores')
        instances = InstanceData(**dict(zip(names, map(torch.from_numpy, found[:4]), strict=True)))
        masks = found.masks
        if rescale:
            instances.bboxes = instances.bboxes / scale_factors(instances.bboxes, meta)
        if metadata.pasting == 'sampled':
            instances, kept = clip_to_image(instances, size)
            masks = masks[kept.numpy()]
        as_rle = self.test_cfg.get('mask_format') == 'rle'
        if metadata.full_masks:
            height, width = meta['img_shape'][:2]
            resized = [cv2.resize(mask[:height, :width], size[::-1], interpolation=cv2.INTER_NEAREST) for mask in masks]
            pixels = np.array(resized, np.uint8).reshape(-1, *size)
            if as_rle:
                instances.masks = RLEMasks(coco_mask.encode(np.asfortranarray(pixels.transpose(1, 2, 0))), size)
            else:
                instances.masks = torch.from_numpy(pixels.astype(bool))
            return instances
        settings = (masks, instances.bboxes.numpy(), size, metadata.mask_threshold, metadata.pasting)
        instances.masks = encode(*settings) if as_rle else torch.from_numpy(paste(*settings))
        return instances

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError('an exported model only predicts')

    loss = _forward = extract_feat = _refuse
