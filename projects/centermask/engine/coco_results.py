"""Detections as COCO results: with the ids of the config's annotation file, or with a list of the images."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from centermask.datasets.coco import innermost, paths_of
from centermask.datasets.coco_annotations import read_json
from centermask.datasets.image_folder import ImageFolder
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.coco_ids import category_ids
from centermask.utils.errors import InputError


class CocoResults:
    """The detections on some images, as ``predictions.bbox.json`` and ``predictions.segm.json``.

    Where the config's test or validation data list every image and class, ids are theirs and the files are lists of
    results, which ``COCO(ann_file).loadRes`` takes. Elsewhere a file is an object with ``images``, ``categories`` and
    ``annotations``, the results; ids of images are the numbers in their names, as COCO's are, or count from 1, and
    those of classes COCO's own, or count from 1. Every result names its file and its class.

    Args:
        images: paths.
        root: folder that file names are relative to.
        classes: names, by label.
        cfg: the config.

    Attributes:
        classes, category_ids: names and ids, by label.
        origin: a clause that says what the ids are.
    """

    def __init__(self, images: Sequence[Path], root: Path, classes: Sequence[str], cfg: Config) -> None:
        self._root, self.classes = root, classes
        self._header: dict[str, list[dict]] | None = None
        self._results: dict[str, list[dict]] = {'bbox': [], 'segm': []}
        for mode in ('test', 'val'):
            if found := _ids_of_file(cfg.get(f'{mode}_dataloader') or {}, images, classes):
                ann_file, self._image_ids, self.category_ids = found
                self.origin = f'ids are those of {ann_file}'
                return
        numbers = [int(path.stem) for path in images if path.stem.isdecimal()]
        are_numbers = len(set(numbers)) == len(images)
        self._image_ids = {path: numbers[i] if are_numbers else i + 1 for i, path in enumerate(images)}
        self.category_ids = category_ids(classes)
        categories = [{'id': i, 'name': name} for i, name in zip(self.category_ids, classes, strict=True)]
        self._header = {'images': [], 'categories': categories}
        self.origin = (
            "not all of the images are in the config's annotation file: "
            f'their ids {"are the numbers in their names" if are_numbers else "count from 1"}, listed under "images"'
        )

    def image(self, path: Path, size: tuple[int, int]) -> dict[str, Any]:
        """Return the entry of an image of a size (height, width) in a list of images."""
        name = path.relative_to(self._root).as_posix()
        return {'id': self._image_ids[path], 'file_name': name, 'height': size[0], 'width': size[1]}

    def add(self, path: Path, size: tuple[int, int], found: dict[str, Any]) -> None:
        """Add the detections on an image.

        Args:
            path: of the image.
            size: its height and width in pixels.
            found: ``labels``, ``scores``, ``bboxes`` (x1, y1, x2, y2 in pixels), and with a mask branch ``masks`` (RLE)
                and ``mask_scores``.
        """
        image = self.image(path, size)
        if self._header:
            self._header['images'].append(image)
        for i, label in enumerate(found['labels']):
            x1, y1, x2, y2 = found['bboxes'][i]
            entry = {
                'id': len(self._results['bbox']) + 1,
                'image_id': image['id'],
                'file_name': image['file_name'],
                'category_id': self.category_ids[label],
                'category_name': self.classes[label],
            }
            self._results['bbox'].append({**entry, 'bbox': [x1, y1, x2 - x1, y2 - y1], 'score': found['scores'][i]})
            if 'masks' in found:  # FCOS alone has none
                score = found.get('mask_scores', found['scores'])[i]
                self._results['segm'].append({**entry, 'segmentation': found['masks'][i], 'score': score})

    def write(self, folder: Path) -> list[Path]:
        """Write both files and return their paths."""
        paths = [folder / f'predictions.{kind}.json' for kind in self._results]
        for path, results in zip(paths, self._results.values(), strict=True):
            content = {**self._header, 'annotations': results} if self._header else results
            atomic_write_text(path, json.dumps(content, ensure_ascii=False))
        return paths


def _ids_of_file(
    loader: dict, images: Sequence[Path], classes: Sequence[str]
) -> tuple[Path, dict[Path, Any], list[Any]] | None:
    """Return a loader's annotation file and the ids in it of images and classes; None unless it lists all of them."""
    try:
        ann_file, folder = paths_of(innermost(loader))
        content = read_json(ann_file)
        on_disk = ImageFolder(folder)
        found = {on_disk.find(entry['file_name']): entry['id'] for entry in content['images']}
        image_ids = {os.path.realpath(path): number for path, number in found.items() if path}
        category_ids = {entry['name']: entry['id'] for entry in content['categories']}
        return (
            ann_file,
            {path: image_ids[os.path.realpath(path)] for path in images},
            [category_ids[name] for name in classes],
        )
    except (InputError, AttributeError, KeyError, TypeError):  # another data set, or one that training refuses
        return None
