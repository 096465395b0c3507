"""An exported file in the place of a detector, for MMEngine's runner and MMDetection's inferencer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from centermask.export.metadata import Metadata
from centermask.export.runtime import Detections, ExportedModel
from centermask.fast.malloc import large_buffers_kept
from centermask.mask_pasting import encode, paste
from centermask.structures.rle_masks import RLEMasks
from centermask.utils.errors import InputError


def put_in_place(cfg: Config, file: str) -> None:
    """Make a config test an exported file.

    Raises:
        InputError: the file can't be used.
    """
    cfg.model = ConfigDict(type='ExportedCenterMask', file=file, test_cfg=dict(mask_format='rle'))
    cfg.load_from = None
    ExportedModel(file)  # what is wrong with it is said before the data are read


def warn_of_another_config(cfg: Config, metadata: Metadata, file: str) -> None:
    """Say in what an exported file isn't of a config: of the config no more than the resizing counts then."""
    heads = [cfg.model.get(name) or {} for name in ('bbox_head', 'roi_head')]
    data = cfg.test_dataloader.dataset
    classes = data.get('metainfo', {}).get('classes') or DATASETS.get(data.type).METAINFO['classes']
    resizes = [(step.type, sorted(step.scale)) for step in data.get('pipeline', []) if step.get('scale') is not None]
    pairs = {
        'classes': (_named(metadata.classes), _named(classes)),
        'recipe': (metadata.recipe, 'paper' if heads[0].get('legacy_boxes') else 'star'),
        'pasting': (metadata.pasting, heads[1].get('pasting', 'sampled')),
        'resizing': ((metadata.resize, sorted(metadata.scale)), resizes[0] if len(resizes) == 1 else resizes),
    }
    different = [
        f'{what} {here} where the config has {there}' for what, (here, there) in pairs.items() if here != there
    ]
    if different:
        print(
            f'warning: {file} was not exported with {cfg.filename}, it has {"; ".join(different)}: it computes as '
            'it is and images are resized as the config says, so give the config that it was exported with.',
            file=sys.stderr,
        )


def _named(classes: Sequence[str]) -> str:
    """The number of the classes and the first ones."""
    return f'{len(classes)} ({", ".join(classes[:5])}{" ..." if len(classes) > 5 else ""})'


def require_no_model_options(options: dict) -> None:
    """Raise an :class:`InputError` where ``--cfg-options`` would change an exported model."""
    for key in options:
        if key.split('.')[0] == 'model':
            raise InputError(f'--cfg-options {key}: an exported file is as it is, so export the checkpoint with it.')


@MODELS.register_module()
class ExportedCenterMask(BaseDetector):
    """Detects by ONNX Runtime or OpenVINO.

    Args:
        file, backend, threads: as :class:`ExportedModel` takes them.
        test_cfg: ``mask_format``, as of a CenterMask; nothing else can be set any more.
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
        """As every model, with torch in one thread.

        The runtime's threads spin for a while after their work, and torch's second one would wait for their core: up to
        50 ms for the little that is left to torch.
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
        results = [
            self._finish(found, sample.metainfo, rescale)
            for found, sample in zip(self.exported(images, sizes), batch_data_samples, strict=True)
        ]
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _finish(self, found: Detections, meta: dict, rescale: bool) -> InstanceData:
        boxes = torch.from_numpy(found.boxes)
        if rescale:
            boxes = boxes / scale_factors(boxes, meta)
        size = meta['ori_shape' if rescale else 'img_shape'][:2]
        detected = InstanceData(
            bboxes=boxes,
            scores=torch.from_numpy(found.scores),
            labels=torch.from_numpy(found.labels),
            mask_scores=torch.from_numpy(found.mask_scores),
        )
        metadata, masks = self.exported.metadata, found.masks
        if metadata.pasting == 'sampled':
            detected, kept = clip_to_image(detected, size)
            masks = masks[kept.numpy()]
        as_rle = self.test_cfg.get('mask_format') == 'rle'
        if metadata.full_masks:
            height, width = meta['img_shape'][:2]
            whole = [cv2.resize(mask[:height, :width], size[::-1], interpolation=cv2.INTER_NEAREST) for mask in masks]
            pixels = np.array(whole, bool).reshape(-1, *size)
            rles = [coco_mask.encode(np.asfortranarray(mask.view(np.uint8))) for mask in pixels]
            detected.masks = RLEMasks(rles, size) if as_rle else torch.from_numpy(pixels)
        else:
            how = (masks, detected.bboxes.numpy(), size, metadata.mask_threshold, metadata.pasting)
            detected.masks = encode(*how) if as_rle else torch.from_numpy(paste(*how))
        return detected

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError('an exported model only predicts')

    loss = _forward = extract_feat = _refuse
