"""COCO data as CenterMask trains and is tested on it, checked before the run."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import MMLogger

from centermask.datasets.coco_annotations import CocoAnnotations, shorten
from centermask.datasets.image_folder import ImageFolder
from centermask.datasets.images import MAX_PIXELS, UnreadableError, check_image, check_sample, describe_size
from centermask.datasets.rle import rle_to_polygons
from centermask.utils.errors import InputError, RunError

# MMDetection's LoadAnnotations ignores an object without polygons; this one has no area in any augmentation, and the
# mask branch leaves it to the box head.
NO_OUTLINE = np.zeros(6)


@DATASETS.register_module()
class CenterMaskCocoDataset(CocoDataset):
    """COCO data for training on polygons.

    Beyond MMDetection's: labels follow the order of the config's classes, objects given as RLE train like polygons,
    those without an outline train their boxes, all images must exist before the run starts, and one warning counts what
    can't be used.

    Args:
        max_pixels: The most pixels of an image to decode; a small file can claim to be a huge image.
        *args, **kwargs: As :class:`mmdet.datasets.CocoDataset` takes them.

    Raises:
        InputError: As for :class:`CocoAnnotations`, and: the config's classes aren't in the file, nothing is left to
            train on, images are missing, or one of a sample can't be used or isn't of the size that the file states.
        RunError: Another image can't be read, or isn't of that size.
    """

    def __init__(self, *args: Any, max_pixels: int = MAX_PIXELS, **kwargs: Any) -> None:
        self.max_pixels = max_pixels
        super().__init__(*args, **kwargs)

    @classmethod
    def _load_metainfo(cls, metainfo: Any = None) -> dict:
        info = super()._load_metainfo(metainfo)
        for key in ('classes', 'stuff_classes'):
            if isinstance(names := info.get(key), str):
                raise ValueError(
                    f"the {key} in metainfo are the text '{names}': write a tuple of names, ('{names}',) for one class"
                )
        if len(info['palette']) < len(info['classes']):
            info['palette'] = 'random'  # drawing fails on a palette with too few colours
        return info

    def load_data_list(self) -> list[dict]:
        """Return the annotations of every image, as MMDetection's pipelines take them."""
        self.COCOAPI = partial(CocoAnnotations, annotated=not self.test_mode, warn=True)
        return super().load_data_list()

    def filter_data(self) -> list[dict]:
        """Return the images to use; with ``filter_empty_gt`` those with an object, a crowd not being one."""
        data_list = super().filter_data()
        if not self.test_mode and (self.filter_cfg or {}).get('filter_empty_gt'):
            data_list = [
                info for info in data_list if not all(instance['ignore_flag'] for instance in info['instances'])
            ]
        if not data_list:
            raise InputError(
                f'The annotation file {self.ann_file} leaves nothing to work on: none of its {len(self.data_list)} '
                f'images has a usable object of the classes {shorten(self.metainfo["classes"])}.'
            )
        instances = [instance for info in data_list for instance in info['instances'] if not instance['ignore_flag']]
        with_masks = any(getattr(step, 'with_mask', False) for step in self.pipeline.transforms)
        if with_masks and not self.test_mode and instances and not any('mask' in instance for instance in instances):
            raise InputError(
                f'The annotation file {self.ann_file} has no object with a usable outline ("segmentation"), so no '
                'masks can be learned: tools/check_dataset.py lists what is wrong with each.'
            )
        if self.backend_args is None:
            folder = self.data_prefix['img']
            names = [os.path.relpath(info['img_path'], folder or '.') for info in data_list]
            for info, path in zip(data_list, ImageFolder(folder).find_all(names, self.ann_file), strict=True):
                info['img_path'] = path
            stated = {info['img_path']: (info['width'], info['height']) for info in data_list}
            if remark := check_sample(stated, self.ann_file, self.max_pixels):
                MMLogger.get_current_instance().warning(f'{self.ann_file}: {remark}')
        return data_list

    def prepare_data(self, idx: int) -> Any:
        """Run one image through the pipeline; RLE is turned into polygons here so that RLE data sets load fast."""
        info = self.get_data_info(idx)
        for instance in info['instances']:
            mask = instance.get('mask')
            if isinstance(mask, dict) and not instance['ignore_flag']:
                mask = rle_to_polygons(mask)
            instance['mask'] = mask or [NO_OUTLINE]
        path, expected = info['img_path'], (info['height'], info['width'])
        self._check_image(path)
        try:
            data = self.pipeline(info)
        except Exception:
            self._check_image(path, decode=True)
            raise
        # The pipeline writes into `info`, unless its first transform doesn't load the image.
        height, width = info.get('ori_shape', expected)
        if (height, width) != expected:
            size = describe_size(check_image(path, self.max_pixels, decode=True), expected[::-1])
            raise RunError(
                f'The image {path} {size} but {self.ann_file} states {expected[1]}x{expected[0]}: correct one of them.'
            )
        return data

    def _check_image(self, path: str, decode: bool = False) -> None:
        if self.backend_args is None:
            try:
                check_image(path, self.max_pixels, decode)
            except UnreadableError as error:
                raise RunError(str(error)) from error


def innermost(dataset: dict) -> dict:
    """Return the config of the data set itself within wrappers that repeat or balance it."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def paths_of(dataset: dict) -> tuple[Path, Path]:
    """Return the annotation file and the folder of images in the config of a data set."""
    root = Path(dataset.get('data_root') or '')
    return root / dataset.get('ann_file', ''), root / (dataset.get('data_prefix') or {}).get('img', '')
