"""Models to time: any config of this project or of MMDetection, as shipped or in a variant."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mmdet.structures.mask
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch.nn.modules.batchnorm import _BatchNorm

from centermask.benchmark.predictions import Predictions
from centermask.benchmark.rounds import timed_on
from centermask.datasets.shapes import draw_image
from centermask.engine.configs import config_errors, load_config
from centermask.engine.rle_results import give_rle_masks
from centermask.fast.fused_inference import FusedInference
from centermask.fast.fused_layers import fuse_for_inference, half_type
from centermask.fast.malloc import large_buffers_kept
from centermask.utils.errors import InputError

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
        equal, amp, runtimes, int8: variants to time, see :func:`variants_of`.
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
    runtimes: Sequence[str] = ()
    int8: bool = False
    stages: bool = True
    batch_size: int = 0


class Variant(NamedTuple):
    """A way to run a model: its name in the results, the network's precision and what computes it."""

    name: str
    precision: str = 'float32'
    backend: str = 'eager'


AS_SHIPPED = Variant('as shipped')
EQUAL = Variant('equal')


def variants_of(config: Config, settings: Settings) -> Iterator[Variant]:
    """Yield the variants of a config's model that the settings ask for.

    * ``equal``: a model that doesn't fuse its layers itself with BN folded, in channels-last memory and with large
      buffers kept, as a CenterMask predicts.
    * ``amp``: the network in half precision, bfloat16 on a CPU and float16 on a GPU; OpenVINO's files too.
    * ``runtimes``: a CenterMask with a mask branch as a file of ONNX Runtime or OpenVINO; with ``int8`` quantised, too.
    """
    yield AS_SHIPPED
    if settings.equal and not fuses_itself(config):
        yield EQUAL
    if settings.amp:
        half = str(half_type(torch.device(settings.device))).removeprefix('torch.')
        yield Variant(half, half)
    for runtime in settings.runtimes if config.model.type == 'CenterMask' and config.model.get('roi_head') else ():
        yield Variant(runtime, backend=runtime)
        if settings.amp and runtime == 'openvino':
            yield Variant(f'{runtime}, bfloat16', 'bfloat16', runtime)
        if settings.int8:
            yield Variant(f'{runtime}, int8', 'int8', runtime)


@dataclass
class TimedModel:
    """A model in one variant.

    Attributes:
        variant: how it runs.
        model: in eval mode, on the device.
        batches: one image each, as ``test_step`` takes them.
        masks, device: as in :class:`Settings`.
        predictions: that replace those of the weights; None if the model isn't eager.
    """

    variant: Variant
    model: Any
    batches: Sequence[dict]
    masks: str
    device: str
    predictions: Predictions | None

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the first image, resized."""
        height, width = self.batches[0]['inputs'][0].shape[-2:]
        return height, width

    def run(self, number: int = 0) -> SampleList:
        """Return the result of a round's image, from its pixels to full-size masks."""
        batch = self.batches[number % len(self.batches)]
        samples = [DetDataSample(metainfo=sample.metainfo) for sample in batch['data_samples']]
        dtype = getattr(torch, self.variant.precision)
        # A model that fuses its layers, and an exported one, have a half precision of their own.
        own = self.predictions is None or isinstance(self.model, FusedInference)
        autocast = dtype in (torch.bfloat16, torch.float16) and not own
        with (
            torch.no_grad(),
            torch.autocast(torch.device(self.device).type, dtype) if autocast else nullcontext(),
            self.predictions.handed_in() if self.predictions else nullcontext(),
        ):
            results = self.model.test_step(dict(inputs=batch['inputs'], data_samples=samples))
        if self.masks == 'rle':
            for result in results:
                encode(result.pred_instances)
        return results

    def memory(self) -> AbstractContextManager:
        """Return the context of a run: equal models keep large buffers, as a CenterMask does itself."""
        return large_buffers_kept() if self.variant == EQUAL else nullcontext()

    def seconds(self, number: int) -> float:
        """Return the time of a round's image."""
        with self.memory():
            return timed_on(self.device)(lambda: self.run(number))


def synthetic_image(index: int = 0) -> np.ndarray:
    """Return an image (480, 640, 3) of shapes in BGR, as large as most of COCO's."""
    return np.ascontiguousarray(draw_image(0, index, (480, 640), (12.0, 150.0))[0][..., ::-1])


def fuses_itself(config: Config) -> bool:
    """Return whether a config's model fuses its layers and keeps large buffers without being asked."""
    kind = MODELS.get(config.model.type)
    return isinstance(kind, type) and issubclass(kind, FusedInference)


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
        InputError: there is none, it can't be read, or it isn't a detector's.
    """
    if '::' not in name:
        config = load_config(name)
    else:
        try:
            config = get_config(name)
        except Exception as error:
            raise InputError(f'The config {name} is not in the package: give a path under its configs/.') from error
    if not (config.get('model') or {}).get('test_cfg') or 'test_dataloader' not in config:
        raise InputError(f'The config {name} has no model.test_cfg or no test_dataloader: give one of a detector.')
    return config


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


def timed_model(config: Config, settings: Settings, variant: Variant = AS_SHIPPED) -> TimedModel:
    """Build the model of a config, which isn't changed, in one of its eager variants.

    Raises:
        InputError: the model can't be built.
    """
    config = copy.deepcopy(config)
    test_cfg = config.model.test_cfg
    test_cfg.get('rcnn', test_cfg)['max_per_img'] = settings.detections
    if settings.size:
        set_size(config, *settings.size)
    torch.manual_seed(0)
    model = build(config, 'cpu').to(settings.device)
    if settings.masks == 'rle':
        give_rle_masks(model)
    batches = as_batches(config, settings.images)
    normalise(model, batches[0])
    if variant == EQUAL:
        model = fuse_for_inference(model)
    if variant.precision != 'float32' and isinstance(model, FusedInference):
        model.half_precision = True
    return TimedModel(variant, model, batches, settings.masks, settings.device, Predictions(model, settings.detections))


def normalise(model: Any, batch: dict) -> None:
    """Give BN the statistics of its input, layer after layer: without, RTMDet's features vanish and its masks too."""

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
