"""The pictures that models are timed on: photographs of a folder, or made ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope

from centermask.datasets.images import unreadable
from centermask.utils.errors import InputError

MADE_SIZE = (480, 640)  # as most of COCO's
FROM_FILES = ('LoadImageFromFile', 'LoadAnnotations', 'LoadPanopticAnnotations')


def make_picture(seed: int) -> np.ndarray:
    """Return coloured blotches of all sizes (H, W, 3), the same for the same seed."""
    rng = np.random.default_rng(seed)
    height, width = MADE_SIZE
    picture = np.zeros((height, width, 3), np.float32)
    for cell in (2, 8, 32, 128):
        noise = rng.normal(0, 30, (-(-height // cell), -(-width // cell), 3)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + 115, 0, 255).astype(np.uint8)


def read_pictures(paths: Sequence[Path]) -> list[np.ndarray]:
    """Read photographs (H, W, 3) in BGR.

    Raises:
        InputError: one of them can't be read.
    """
    pictures = []
    for path in paths:
        picture = mmcv.imread(str(path))
        if picture is None:
            raise InputError(unreadable(path))
        pictures.append(picture)
    return pictures


def set_size(config: Config, shorter: int, longer: int) -> None:
    """Let a config test at another size than its own.

    Raises:
        InputError: its test pipeline resizes nothing.
    """
    resizes = [t for t in config.test_dataloader.dataset.pipeline if t['type'].endswith('Resize') and 'scale' in t]
    if not resizes:
        raise InputError('--size: the test pipeline has no transform that resizes to a scale.')
    for transform in resizes:
        transform['scale'] = (longer, shorter)


def as_batches(config: Config, pictures: Sequence[np.ndarray]) -> list[dict]:
    """Put pictures through a config's test pipeline, each a batch of its own as ``test_step`` takes it."""
    pipeline = [t for t in config.test_dataloader.dataset.pipeline if t['type'].split('.')[-1] not in FROM_FILES]
    with DefaultScope.overwrite_default_scope('mmdet'):
        transforms = Compose(copy.deepcopy(pipeline))
        batches = []
        for i, picture in enumerate(pictures):
            size = picture.shape[:2]
            packed = transforms(dict(img=picture, img_path='', img_id=i, img_shape=size, ori_shape=size))
            batches.append(dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]))
    return batches
