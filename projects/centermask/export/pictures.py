"""Images as a network takes them, to check an exported file with or to calibrate one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import DATASETS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config, ConfigDict
from torch import Tensor

from centermask.datasets.images import find_images
from centermask.utils.errors import InputError


class Batch(NamedTuple):
    """Images of one or more sizes."""

    network: Tensor  # (N, 3, H, W), normalised and padded
    sizes: np.ndarray  # (N, 2), height and width of each without padding
    pixels: np.ndarray  # (N, H, W, 3), bytes, blue first

    def inputs(self, preprocess: bool) -> dict[str, np.ndarray]:
        """What an exported file takes; arguments as its metadata say."""
        return {'images': self.pixels if preprocess else self.network.numpy(), 'sizes': self.sizes}


def make_batch(model: Any, images: Sequence[Tensor]) -> Batch:
    """Put images (3, H, W) of bytes together."""
    network = model.data_preprocessor({'inputs': list(images), 'data_samples': None})['inputs']
    pixels = np.zeros((len(images), *network.shape[2:], 3), np.uint8)
    for picture, image in zip(pixels, images, strict=True):
        picture[: image.shape[1], : image.shape[2]] = image.permute(1, 2, 0).numpy()
    return Batch(network, np.array([image.shape[1:] for image in images]), pixels)


def make_inputs(model: Any, images: Sequence[Tensor], preprocess: bool) -> list[dict[str, np.ndarray]]:
    """What an exported file takes of images (3, H, W) of bytes, one by one, to quantise it by."""
    return [make_batch(model, [image]).inputs(preprocess) for image in images]


def read(cfg: Config, files: Sequence[str | Path]) -> list[Tensor]:
    """Pictures, resized as the config does for testing, each (3, H, W) of bytes."""
    pipeline = Compose(get_test_pipeline_cfg(cfg))
    return [pipeline({'img_path': str(path), 'img_id': i})['inputs'] for i, path in enumerate(files)]


def find(folder: str | None, cfg: Config, part: str, count: int) -> list[str]:
    """The paths of a folder's images, or where none is given of ``count`` of a config's.

    Args:
        folder: which may hold more than ``count``.
        cfg: read where there is no folder.
        part: of its data, ``'train'`` or ``'test'``; no paths where they aren't there.
        count: as :func:`of_data_set` takes it.

    Raises:
        InputError: the folder isn't there or has no images.
    """
    if folder:
        return [str(path) for path in find_images(folder)]
    return of_data_set(cfg[f'{part}_dataloader'].dataset, count)


def of_data_set(settings: ConfigDict, count: int) -> list[str]:
    """The paths of ``count`` images spread over a data set of a config, or none where the data aren't there."""
    try:
        data = DATASETS.build({**settings, 'pipeline': [], 'lazy_init': False, 'serialize_data': False})
    except (InputError, OSError):
        return []
    places = np.unique(np.linspace(0, len(data) - 1, count).astype(int))
    return [data.get_data_info(int(i))['img_path'] for i in places]


def made() -> list[Tensor]:
    """Pictures of squares of noise, for where there are no others."""
    rng = np.random.default_rng(0)
    sizes = ((256, 320), (288, 224), (320, 320))
    coarse = [rng.integers(0, 256, (h // 16, w // 16, 3), np.uint8) for h, w in sizes]
    whole = [mmcv.imrescale(picture, 16.0, interpolation='nearest') for picture in coarse]
    return [torch.from_numpy(picture.transpose(2, 0, 1).copy()) for picture in whole]
