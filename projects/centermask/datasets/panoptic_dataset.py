"""COCO data with semantic PNGs, for Panoptic-CenterMask."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from mmdet.registry import DATASETS
from PIL import Image

from centermask.datasets.coco import CenterMaskCocoDataset
from centermask.datasets.coco_panoptic import STUFF
from centermask.datasets.image_folder import ImageFolder
from centermask.datasets.images import DECODED, HEADERS
from centermask.datasets.semantic_masks import UNLABELLED
from centermask.utils.errors import InputError, RunError

_MAKE_ANEW = 'make it anew with tools/make_semantic_masks.py'


@DATASETS.register_module()
class CenterMaskPanopticDataset(CenterMaskCocoDataset):
    """Objects of a COCO file, which may overlap, and a semantic PNG an image (``data_prefix.seg``).

    tools/make_semantic_masks.py makes the PNGs. In testing none are needed.

    Args:
        *args, **kwargs: As :class:`CenterMaskCocoDataset` takes them. ``metainfo`` has ``classes``, the things, and
            ``stuff_classes``, in the order of their ids; COCO's by default.

    Raises:
        InputError: As there, and: PNGs are missing, or one of a sample can't be used.
        RunError: Another PNG can't be used.
    """

    METAINFO: ClassVar[dict] = {**CenterMaskCocoDataset.METAINFO, 'stuff_classes': STUFF}

    def filter_data(self) -> list[dict]:
        """Return the images to use, whose PNGs there are; a sample of the PNGs is looked at."""
        data_list = super().filter_data()
        folder = self.data_prefix.get('seg')
        if folder is None or self.backend_args is not None:
            return data_list
        on_disk = ImageFolder(folder)
        missing = []
        for info in data_list:
            path = on_disk.find(os.path.relpath(info['seg_map_path'], folder))
            if path is None:
                missing.append(info['seg_map_path'])
            else:
                info['seg_map_path'] = path
        if missing:
            raise InputError(
                f'{len(missing)} of the {len(data_list)} semantic PNGs in {folder} are missing, the first is '
                f'{missing[0]}: make them with tools/make_semantic_masks.py or correct data_prefix.seg.'
            )
        for info in data_list[:: math.ceil(len(data_list) / HEADERS)]:
            self._check_header(info, InputError)
        for info in data_list[:: math.ceil(len(data_list) / DECODED)]:
            pixels = cv2.imread(info['seg_map_path'], cv2.IMREAD_UNCHANGED)
            self._check_labels(pixels, info, InputError)
        return data_list

    def prepare_data(self, idx: int) -> Any:
        """Run one image through the pipeline, and check its semantic PNG."""
        info = self.get_data_info(idx)
        if info['seg_map_path'] is not None and self.backend_args is None:
            self._check_header(info, RunError)
        data = super().prepare_data(idx)
        if data is not None and 'gt_sem_seg' in data.get('data_samples', ()):
            self._check_labels(data['data_samples'].gt_sem_seg.sem_seg.numpy(), info, RunError)
        return data

    def _check_header(self, info: dict, error: type[Exception]) -> None:
        """Raise an error if a PNG isn't one of a byte a pixel, of the size of its image."""
        path = Path(info['seg_map_path'])
        try:
            with Image.open(path, formats=('PNG',)) as image:
                size, mode = image.size, image.mode
        except Exception as reason:  # a damaged file may raise anything
            raise error(f'The semantic PNG {path} could not be read: {_MAKE_ANEW}.') from reason
        if mode != 'L':
            raise error(f'The semantic PNG {path} is of the mode {mode}, not of one byte a pixel (L): {_MAKE_ANEW}.')
        if size != (info['width'], info['height']):
            raise error(
                f'The semantic PNG {path} is {size[0]}x{size[1]} pixels but its image '
                f'{info["width"]}x{info["height"]}: {_MAKE_ANEW}.'
            )

    def _check_labels(self, pixels: np.ndarray | None, info: dict, error: type[Exception]) -> None:
        """Raise an error if a PNG can't be decoded or holds a label that there is no class for."""
        path, count = info['seg_map_path'], len(self.metainfo['stuff_classes'])
        if pixels is None:
            raise error(f'The semantic PNG {path} could not be read: {_MAKE_ANEW}.')
        strange = pixels[(pixels > count) & (pixels != UNLABELLED)]
        if strange.size:
            raise error(
                f'The semantic PNG {path} holds the label {strange[0]}, and the {count} stuff_classes of the data set '
                f'have labels up to {count}: correct stuff_classes in its metainfo, or {_MAKE_ANEW}.'
            )
