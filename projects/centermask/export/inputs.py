"""Images to compare an exported file on or to calibrate one with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import DATASETS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config, ConfigDict
from torch import Tensor

from centermask.datasets.coco import innermost
from centermask.datasets.images import check_image
from centermask.datasets.shapes import draw_image
from centermask.utils.errors import InputError


def make_inputs(model: Any, images: Sequence[Tensor], preprocess: bool) -> list[dict[str, np.ndarray]]:
    """Return an exported file's inputs for each of the images, bytes (3, H, W), one at a time.

    Args:
        model: the detector that is exported.
        images: resized for testing.
        preprocess: as in the file's metadata.
    """
    inputs = []
    for image in images:
        if preprocess:
            batch = image.permute(1, 2, 0)[None]
        else:
            batch = model.data_preprocessor({'inputs': [image], 'data_samples': None})['inputs']
        inputs.append({'images': np.ascontiguousarray(batch), 'sizes': np.array([image.shape[1:]])})
    return inputs


def read_images(cfg: Config, files: Sequence[str | Path]) -> list[Tensor]:
    """Return images, each bytes (3, H, W), resized by the config's test pipeline.

    Raises:
        InputError: an image can't be used.
    """
    for path in files:
        check_image(path, decode=True)
    pipeline = Compose(get_test_pipeline_cfg(cfg))
    return [pipeline({'img_path': str(path), 'img_id': i})['inputs'] for i, path in enumerate(files)]


def synthetic_images() -> list[Tensor]:
    """Return generated images of three sizes, each bytes (3, H, W)."""
    sizes = ((256, 320), (288, 224), (320, 320))
    images = [draw_image(seed=0, index=i, size=size)[0] for i, size in enumerate(sizes)]
    return [torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))) for image in images]


def paths_of_dataset(settings: ConfigDict, count: int) -> list[str]:
    """Return the paths of up to ``count`` images spread over a config's dataset, none if it isn't on this machine."""
    try:
        dataset = DATASETS.build({**innermost(settings), 'pipeline': [], 'lazy_init': False, 'serialize_data': False})
    except (InputError, OSError):
        return []
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
    return [dataset.get_data_info(int(i))['img_path'] for i in indices]
