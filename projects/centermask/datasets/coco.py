"""COCO data as CenterMask trains and is tested on it, checked before the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger

from centermask.datasets.annotations import CocoAnnotations, box_has_area, some
from centermask.datasets.images import MAX_PIXELS, UnreadableError, check_image, valid_max_pixels
from centermask.datasets.rle import rle_to_polygons
from centermask.utils.errors import InputError, RunError


@DATASETS.register_module()
class CenterMaskCocoDataset(CocoDataset):
    """COCO data for training on polygons.

    Beyond MMDetection's: labels follow the order of the config's classes, objects given as RLE train like polygons, all
    images must be there before the run starts, and what can't be used is named in one warning.

    Args:
        max_pixels: The most pixels of an image to decode; a small file can claim to be a huge image.
        *args, **kwargs: As :class:`mmdet.datasets.CocoDataset` takes them.

    Raises:
        InputError: Whatever :class:`CocoAnnotations` raises, and: the config's classes aren't in the file, nothing is
            left to train on, or images are missing.
        RunError: An image can't be read, or isn't of the size that the file says.
    """

    def __init__(self, *args: Any, max_pixels: int = MAX_PIXELS, **kwargs: Any) -> None:
        self.max_pixels = valid_max_pixels(max_pixels)
        super().__init__(*args, **kwargs)

    @classmethod
    def _load_metainfo(cls, metainfo: Any = None) -> dict:
        info = super()._load_metainfo(metainfo)
        if isinstance(info['classes'], str):
            raise ValueError(
                f"the classes in metainfo are the text '{info['classes']}': write a tuple of names, "
                f"('{info['classes']}',) for one class"
            )
        if len(info['palette']) < len(info['classes']):
            info['palette'] = 'random'  # drawing fails on a palette with too few colours
        return info

    def load_data_list(self) -> list[dict]:
        """Annotations of every image, as MMDetection's pipelines take them."""
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            self.coco = CocoAnnotations(path, annotated=not self.test_mode)
        self.cat_ids = self.coco.get_cat_ids(cat_names=self.metainfo['classes'])
        self.cat2label = {category: label for label, category in enumerate(self.cat_ids)}
        self.cat_img_map = self.coco.cat_img_map

        data_list = []
        for image in self.coco.dataset['images']:
            annotations = []
            for annotation in self.coco.img_ann_map.get(image['id'], []):
                if box_has_area(annotation, image):
                    annotations.append(annotation)
                else:
                    self.coco.unusable['whose box is under a pixel or outside the image'].append(annotation['id'])
            image = {**image, 'img_id': image['id']}
            data_list.append(self.parse_data_info({'raw_img_info': image, 'raw_ann_info': annotations}))

        if self.coco.unusable:
            MMLogger.get_current_instance().warning(_describe(self.ann_file, self.coco.unusable))
        del self.coco
        return data_list

    def filter_data(self) -> list[dict]:
        """The images to use; with ``filter_empty_gt`` those with an object, a crowd not being one."""
        data_list = super().filter_data()
        if not self.test_mode and (self.filter_cfg or {}).get('filter_empty_gt'):
            data_list = [
                info for info in data_list if not all(instance['ignore_flag'] for instance in info['instances'])
            ]
        if not data_list:
            raise InputError(
                f'The annotation file {self.ann_file} leaves nothing to work on: none of its {len(self.data_list)} '
                f'images has a usable object of the classes {some(self.metainfo["classes"])}.'
            )
        if self.backend_args is None:
            check_images_exist([info['img_path'] for info in data_list], self.ann_file)
        return data_list

    def _get_unserialized_subset(self, indices: Any) -> list[dict]:
        try:
            return super()._get_unserialized_subset(indices)
        except IndexError as error:
            last = len(self.data_list) - 1
            raise ValueError(f'indices of {self.ann_file} are of images 0 to {last}, not {some(indices)}') from error

    def prepare_data(self, idx: int) -> Any:
        """One image through the pipeline, RLE turned into polygons only now lest data sets full of it start slowly."""
        info = self.get_data_info(idx)
        for instance in info['instances']:
            if isinstance(instance['mask'], dict) and not instance['ignore_flag']:
                instance['mask'] = rle_to_polygons(instance['mask'])
        path, expected = info['img_path'], (info['height'], info['width'])
        if self.backend_args is None:
            with suppress(UnreadableError):  # of which the pipeline speaks
                check_image(path, self.max_pixels)
        try:
            data = self.pipeline(info)
        except Exception:
            _check_readable(path)
            raise
        # Transforms write into `info`; where the first of them isn't one that loads, there is nothing to compare.
        height, width = info.get('ori_shape', expected)
        if (height, width) != expected:
            raise RunError(
                f'The image {path} is {width}x{height} pixels but {self.ann_file} says {expected[1]}x{expected[0]}: '
                'correct one of them.'
            )
        return data


def innermost(dataset: dict) -> dict:
    """The config of the data set itself within those that repeat or balance it."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def check_images_exist(paths: Sequence[str], ann_file: str) -> None:
    """Look for images by listing each folder once, which takes a second where asking for 118,000 files takes minutes.

    Raises:
        InputError: Names the first file that isn't there, and how many aren't.
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = {entry.name for entry in os.scandir(folder or '.')} if Path(folder).is_dir() else set()
        if name not in listed[folder]:
            missing.append(path)
    if missing:
        raise InputError(
            f'{len(missing)} of the {len(paths)} images of {ann_file} are missing, the first is {missing[0]}: '
            'put them there or correct data_root and data_prefix.'
        )


def _describe(ann_file: str, unusable: dict[str, list]) -> str:
    total = sum(map(len, unusable.values()))
    parts = [f'{len(ids)} {reason} (ids {some(ids)})' for reason, ids in unusable.items()]
    return f'{ann_file}: left out {total} annotations that can not be used: {"; ".join(parts)}.'


def _check_readable(path: str) -> None:
    try:
        LoadImageFromFile()({'img_path': path})
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else 'it is damaged or not an image'
        raise RunError(
            f'The image {path} could not be read ({reason}): replace it or take it out of the annotation file.'
        ) from error
