"""Models as they are timed: of this project's configs and MMDetection's, as shipped or helped along."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import mmdet.structures.mask
import numpy as np
import torch
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

from centermask.benchmark.calibration import calibrate
from centermask.benchmark.calibration_pictures import Found
from centermask.benchmark.malloc import without_kept_memory
from centermask.benchmark.pictures import as_batches, set_size
from centermask.detector import CenterMask
from centermask.engine.configs import load_config
from centermask.export.exported_detector import ExportedCenterMask
from centermask.fast.fused_layers import fuse_for_inference, half_type
from centermask.fast.malloc import large_buffers_kept
from centermask.tables.measure import build
from centermask.utils.errors import InputError

# Ways of running a model: without more ado, and as a CenterMask is run.
SHIPPED = 'as shipped'
EQUAL = 'equal'

# Compiled, of a model and of its RoI head. Extractors aren't: ours is NumPy's work in part, others are MMCV's operator.
PARTS = ('backbone', 'neck', 'rpn_head', 'bbox_head', 'mask_head', 'mask_iou_head')


class Contestant:
    """One model in one way of running it.

    Args:
        config: name of its config.
        way: ``SHIPPED`` or what was changed.
        model: in eval mode, on the device.
        batches: a picture each.
        masks: what a result's masks are, ``'tensor'`` (bool, N × H × W) or ``'rle'``.
        precision: that its network computes in; eager models by autocast, if it isn't float32.
        backend: what computes it.
    """

    def __init__(
        self,
        config: str,
        way: str,
        model: Any,
        batches: Sequence[dict],
        masks: str,
        precision: str = 'float32',
        backend: str = 'eager',
    ) -> None:
        self.config, self.way, self.model, self.batches, self.masks = config, way, model, batches, masks
        self.precision, self.backend = precision, backend
        tensors = [*model.parameters()]
        self.device = tensors[0].device.type if tensors else 'cpu'

    def __str__(self) -> str:
        return f'{short_name(self.config)}, {self.way}'

    def memory(self) -> AbstractContextManager:
        """What its runs are in: the memory that they have in a process of their own."""
        if self.device != 'cpu' or isinstance(self.model, CenterMask | ExportedCenterMask):  # which keep it themselves
            return nullcontext()
        return large_buffers_kept() if self.way == EQUAL else without_kept_memory()

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the first picture, resized."""
        height, width = self.batches[0]['inputs'][0].shape[-2:]
        return height, width

    def run(self, number: int) -> SampleList:
        """Return the result of the picture of a round, from its pixels to full-size masks."""
        batch = self.batches[number % len(self.batches)]
        samples = [DetDataSample(metainfo=sample.metainfo) for sample in batch['data_samples']]
        # A CenterMask computes in half precision without autocast.
        plain = self.backend != 'eager' or self.precision == 'float32' or isinstance(self.model, CenterMask)
        with torch.no_grad(), nullcontext() if plain else torch.autocast(self.device, getattr(torch, self.precision)):
            results = self.model.test_step(dict(inputs=batch['inputs'], data_samples=samples))
        if self.masks == 'rle':
            for result in results:
                encode(result.pred_instances)
        return results


def encode(found: Any) -> None:
    """Encode masks as COCO's run lengths, as MMDetection does it for its evaluation; those that are, stay."""
    masks = found.get('masks')
    if isinstance(masks, torch.Tensor | np.ndarray):
        masks = masks.cpu().numpy() if isinstance(masks, torch.Tensor) else masks
        found.masks = mmdet.structures.mask.encode_mask_results(masks)


def short_name(config: str) -> str:
    """File name of a config without its ending, with the package that it is from."""
    package, _, path = config.rpartition('::')
    return f'{package}::{Path(path).stem}' if package else Path(path).stem


def read_config(name: str) -> Config:
    """Read a config of this project's or the user's by its path, or of MMDetection by ``mmdet::FOLDER/NAME.py``.

    Raises:
        InputError: there is none, or it can't be read.
    """
    if '::' not in name:
        return load_config(name)
    try:
        return get_config(name)
    except Exception as error:
        raise InputError(f'The config {name} is not in the package: give a path under its configs/.') from error


def shipped(
    name: str,
    config: Config,
    pictures: Sequence[np.ndarray],
    detections: int,
    device: str,
    size: tuple[int, int] | None = None,
    masks: str = 'tensor',
) -> tuple[Contestant, Found]:
    """Build the model of a config as it tests by default, calibrated to find things on the pictures.

    Args:
        name, config: the name under which the config was read, and what was read; it stays as it is.
        pictures: (H, W, 3) in BGR.
        detections: on each of them.
        device: torch's name of it.
        size: of the test pictures' shorter and longer side, instead of the config's own.
        masks: ``'tensor'`` or ``'rle'``.

    Raises:
        InputError: the config isn't a detector's, or its model can't be built or not be calibrated.
    """
    config = copy.deepcopy(config)
    settings = (config.get('model') or {}).get('test_cfg')
    if not settings or 'test_dataloader' not in config:
        raise InputError(f'The config {name} has no model.test_cfg or no test_dataloader: give one of a detector.')
    settings.get('rcnn', settings)['max_per_img'] = detections
    if masks == 'rle' and config.model.type == 'CenterMask':
        settings['mask_format'] = 'rle'
    if size:
        set_size(config, *size)
    torch.manual_seed(0)
    model: Any = build(config, 'cpu').to(device)
    batches = as_batches(config, pictures)
    found = calibrate(model, batches, detections)
    return Contestant(name, SHIPPED, model, batches, masks), found


def other_ways(
    contestant: Contestant, equal: bool = False, amp: bool = False, channels_last: bool = False, compiled: bool = False
) -> Iterator[Contestant]:
    """Yield the same model, run otherwise than it is shipped.

    Args:
        contestant: as shipped.
        equal: with BN folded, in channels-last memory and in memory that the process keeps, as CenterMask tests; only
            models that don't do so themselves.
        amp: with the network in half precision, bfloat16 on a CPU and float16 on a GPU.
        channels_last: in channels-last memory.
        compiled: with the network's parts compiled by ``torch.compile``.
    """

    def other(way: str, model: nn.Module, precision: str = 'float32') -> Contestant:
        return Contestant(contestant.config, way, model, contestant.batches, contestant.masks, precision)

    if equal and not isinstance(contestant.model, CenterMask):
        yield other(EQUAL, fuse_for_inference(copy.deepcopy(contestant.model)))
    if amp:
        half: Any = contestant.model
        if isinstance(half, CenterMask):
            half = copy.deepcopy(half)
            half.half_precision = True
        precision = str(half_type(torch.device(contestant.device))).removeprefix('torch.')
        yield other(precision, half, precision)
    if channels_last:
        yield other('channels-last', copy.deepcopy(contestant.model).to(memory_format=torch.channels_last))
    if compiled:
        model: Any = copy.deepcopy(contestant.model)
        if isinstance(model, CenterMask):
            model.fuse_conv_bn = False
            fuse_for_inference(model)
        for parent in filter(None, (model, getattr(model, 'roi_head', None))):
            for name, part in parent.named_children():
                if name in PARTS:
                    part.compile()
        yield Contestant(contestant.config, 'compiled', model, contestant.batches, contestant.masks, backend='compiled')
