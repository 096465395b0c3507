"""The models that are timed: configs of this project and of MMDetection, as shipped and in variants."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmdet.structures.mask
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from centermask.benchmark.predictions import Predictions
from centermask.benchmark.rounds import timed_on
from centermask.datasets.shapes import draw_image
from centermask.detector import CenterMask
from centermask.engine.configs import config_errors, load_config
from centermask.fast.fused_layers import fuse_for_inference, half_type
from centermask.fast.malloc import large_buffers_kept
from centermask.utils.errors import InputError

AS_SHIPPED = 'as shipped'
EQUAL = 'equal'

# What `--compile` compiles of a model and of its RoI head. RoI extractors are NumPy's or MMCV's work.
COMPILED = ('backbone', 'neck', 'rpn_head', 'bbox_head', 'mask_head', 'mask_iou_head')
LOADING = ('LoadImageFromFile', 'LoadAnnotations', 'LoadPanopticAnnotations')


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        images: (H, W, 3) in BGR.
        detections: on each image.
        rounds: timed ones, after a warm-up with each image.
        device: torch's name of it.
        threads: of torch; None leaves its default.
        size: shorter and longer side of the resized images; None leaves each config its own.
        masks: of results, ``'tensor'`` (bool, N × H × W) or ``'rle'``.
        equal, amp, channels_last, compiled: variants to time, see :func:`variants`.
        runtimes, int8: of exported models, see :func:`~centermask.benchmark.exported.exported_variants`.
        stages: whether to time stages and count costs, too.
        batch_size: images of a training step, which is timed, too, if this isn't 0.
    """

    images: Sequence[np.ndarray]
    detections: int = 50
    rounds: int = 7
    device: str = 'cpu'
    threads: int | None = None
    size: tuple[int, int] | None = None
    masks: str = 'tensor'
    equal: bool = False
    amp: bool = False
    channels_last: bool = False
    compiled: bool = False
    runtimes: Sequence[str] = ()
    int8: bool = False
    stages: bool = True
    batch_size: int = 0


@dataclass
class TimedModel:
    """A model in one variant.

    Attributes:
        config: name of its config.
        variant: ``AS_SHIPPED`` or what is different.
        model: in eval mode, on the device.
        batches: one image each, as ``test_step`` takes them.
        masks: as in :class:`Settings`.
        predictions: that take the place of those of the weights; None if the model isn't eager.
        precision: of its network.
        backend: what computes it.
    """

    config: str
    variant: str
    model: Any
    batches: Sequence[dict]
    masks: str
    predictions: Predictions | None
    precision: str = 'float32'
    backend: str = 'eager'

    def __post_init__(self) -> None:
        self.device = str(next((p.device for p in self.model.parameters()), 'cpu'))
        self.autocast = self.backend == 'eager' and self.precision != 'float32' and not is_centermask(self.model)

    def __str__(self) -> str:
        return f'{short_name(self.config)}, {self.variant}'

    @property
    def candidates(self) -> int | None:
        """Boxes above the score threshold in each image; None if they are those of random weights."""
        return self.predictions.candidates if self.predictions else None

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the first image, resized."""
        height, width = self.batches[0]['inputs'][0].shape[-2:]
        return height, width

    def run(self, number: int) -> SampleList:
        """Return the result of a round's image, from its pixels to full-size masks."""
        batch = self.batches[number % len(self.batches)]
        samples = [DetDataSample(metainfo=sample.metainfo) for sample in batch['data_samples']]
        kind, dtype = torch.device(self.device).type, getattr(torch, self.precision)
        with (
            torch.no_grad(),
            torch.autocast(kind, dtype) if self.autocast else nullcontext(),
            self.predictions.handed_in() if self.predictions else nullcontext(),
        ):
            results = self.model.test_step(dict(inputs=batch['inputs'], data_samples=samples))
        if self.masks == 'rle':
            for result in results:
                encode(result.pred_instances)
        return results

    def memory(self) -> AbstractContextManager:
        """Return the context of a run: equal models keep the memory of large tensors, as a CenterMask does itself."""
        return large_buffers_kept() if self.variant == EQUAL else nullcontext()

    def seconds(self, number: int) -> float:
        """Return the time of a round's image."""
        with self.memory():
            return timed_on(self.device)(lambda: self.run(number))


def synthetic_image(index: int = 0) -> np.ndarray:
    """Return an image (480, 640, 3) of shapes in BGR, as large as most of COCO's."""
    return np.ascontiguousarray(draw_image(0, index, (480, 640), (12.0, 150.0))[0][..., ::-1])


def is_centermask(model: Any) -> bool:
    """Return whether a model is a CenterMask, which fuses its layers and keeps memory without being asked."""
    return isinstance(model, CenterMask)


def encode(results: Any) -> None:
    """Encode bool masks in place as COCO's run lengths, as MMDetection does for its evaluation."""
    masks = results.get('masks')
    if isinstance(masks, torch.Tensor | np.ndarray):
        masks = masks.cpu().numpy() if isinstance(masks, torch.Tensor) else masks
        results.masks = mmdet.structures.mask.encode_mask_results(masks)


def short_name(config: str) -> str:
    """Return the file name of a config without its ending, with the package that it is from."""
    package, _, path = config.rpartition('::')
    return f'{package}::{Path(path).stem}' if package else Path(path).stem


def read_config(name: str) -> Config:
    """Read a config by its path, or one of MMDetection by ``mmdet::FOLDER/NAME.py``.

    Raises:
        InputError: there is none, or it can't be read.
    """
    if '::' not in name:
        return load_config(name)
    try:
        return get_config(name)
    except Exception as error:
        raise InputError(f'The config {name} is not in the package: give a path under its configs/.') from error


def build(config: Config, device: str = 'meta') -> Any:
    """Build a config's model in eval mode with random weights, by default without memory.

    Raises:
        InputError: a class, an argument or a value in the config doesn't exist.
    """
    with config_errors(config.filename), torch.device(device), DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(config.model).eval()


def set_size(config: Config, shorter: int, longer: int) -> None:
    """Let a config resize its test images to another size.

    Raises:
        InputError: its test pipeline resizes nothing.
    """
    resizes = [t for t in config.test_dataloader.dataset.pipeline if t['type'].endswith('Resize') and 'scale' in t]
    if not resizes:
        raise InputError('--size: the test pipeline has no transform that resizes to a scale.')
    for transform in resizes:
        transform['scale'] = (longer, shorter)
    for transform in config.test_dataloader.dataset.pipeline:
        if transform['type'].endswith('Pad') and transform.get('size'):  # RTMDet's
            transform['size'] = (longer, longer)


def as_batches(config: Config, images: Sequence[np.ndarray]) -> list[dict]:
    """Return each image (H, W, 3) as a batch of its own, through the config's test pipeline."""
    pipeline = [t for t in config.test_dataloader.dataset.pipeline if t['type'].split('.')[-1] not in LOADING]
    batches = []
    with DefaultScope.overwrite_default_scope('mmdet'):
        transforms = Compose(copy.deepcopy(pipeline))
        for i, image in enumerate(images):
            size = image.shape[:2]
            packed = transforms(dict(img=image, img_path='', img_id=i, img_shape=size, ori_shape=size))
            batches.append(dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]))
    return batches


def as_shipped(name: str, config: Config, settings: Settings) -> TimedModel:
    """Build the model of a config as it predicts by default.

    Args:
        name, config: the config's name and content, which isn't changed.
        settings: images, detections, device, size and masks.

    Raises:
        InputError: the config isn't a detector's, or its model can't be built.
    """
    config = copy.deepcopy(config)
    test_cfg = (config.get('model') or {}).get('test_cfg')
    if test_cfg is None or 'test_dataloader' not in config:
        raise InputError(f'The config {name} has no model.test_cfg or no test_dataloader: give one of a detector.')
    test_cfg.get('rcnn', test_cfg)['max_per_img'] = settings.detections
    if settings.masks == 'rle' and config.model.type == 'CenterMask':
        test_cfg['mask_format'] = 'rle'
    if settings.size:
        set_size(config, *settings.size)
    torch.manual_seed(0)
    model = build(config, 'cpu').to(settings.device)
    batches = as_batches(config, settings.images)
    normalise(model, batches[0])
    return TimedModel(name, AS_SHIPPED, model, batches, settings.masks, Predictions(model, settings.detections))


def normalise(model: Any, batch: dict) -> None:
    """Give BN the statistics of its input, layer after layer: features of random weights explode or vanish without."""

    def take_statistics(norm: Any, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        # A constant channel stays as it is, also with an epsilon of 0.
        norm.running_var.copy_(variance.where(variance > 1e-4 * variance.mean(), variance.new_ones(())))

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    with torch.no_grad():
        model.extract_feat(model.data_preprocessor(batch, False)['inputs'])
    for hook in hooks:
        hook.remove()


def variants(first: TimedModel, settings: Settings) -> Iterator[TimedModel]:
    """Yield the other variants of a model that the settings ask for.

    * ``equal``: of models that aren't CenterMasks: with BN folded, channels-last and with the memory of large tensors
      kept, as a CenterMask predicts.
    * ``amp``: the network in half precision, bfloat16 on a CPU and float16 on a GPU.
    * ``channels_last``: in channels-last memory.
    * ``compiled``: with the parts of the network compiled by ``torch.compile``.
    """

    def variant(name: str, model: nn.Module, **attributes: str) -> TimedModel:
        predictions = Predictions(model, settings.detections)
        return TimedModel(first.config, name, model, first.batches, first.masks, predictions, **attributes)

    if settings.equal and not is_centermask(first.model):
        yield variant(EQUAL, fuse_for_inference(copy.deepcopy(first.model)))
    if settings.amp:
        half = copy.deepcopy(first.model)
        if is_centermask(half):
            half.half_precision = True
        precision = str(half_type(torch.device(first.device))).removeprefix('torch.')
        yield variant(precision, half, precision=precision)
    if settings.channels_last:
        yield variant('channels-last', copy.deepcopy(first.model).to(memory_format=torch.channels_last))
    if settings.compiled:
        model = copy.deepcopy(first.model)
        if is_centermask(model):
            model.fuse_conv_bn = False
            fuse_for_inference(model)
        for parent in filter(None, (model, getattr(model, 'roi_head', None))):
            for name, part in parent.named_children():
                if name in COMPILED:
                    part.compile()
        yield variant('compiled', model, backend='compiled')
