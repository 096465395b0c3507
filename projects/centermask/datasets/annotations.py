"""Annotation files in COCO's format: read, checked, and completed where they are silent."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_utils
from mmdet.datasets.api_wrappers import COCO

from centermask.datasets.rle import run_lengths
from centermask.utils.errors import InputError

# What an entry of each list must hold for anything to be done with it.
NEEDED = {
    'categories': ('id', 'name'),
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox'),
}
# Numbers beyond these, in pixels or of an id, are no data: lengths of an image, anything else.
LONGEST_SIDE, LARGEST = 100_000, 2**53
# Of names of files, in bytes; a path has the folder of the images before it.
LONGEST_NAME, LONGEST_PATH = 255, 3000
# What may be absent or null, but no nonsense.
OPTIONAL = ('area', 'iscrowd')


class CocoAnnotations(COCO):
    """MMDetection's reader of COCO files over a file that is checked and completed first.

    A missing ``area`` (that of the polygons or RLE, in pixels) or ``iscrowd`` (0) is filled in; polygons become float64
    arrays. What can't be used is left out and remembered.

    Args:
        annotation_file: Path of the JSON file.
        annotated: False accepts a file without ``annotations``, as COCO's test-dev has.
        with_masks: False keeps objects whose segmentation can't be used.

    Attributes:
        unusable: Ids of the annotations left out, under the reason.

    Raises:
        InputError: The file is missing, isn't JSON or isn't COCO's format, or its ids aren't unique.
    """

    def __init__(self, annotation_file: str, annotated: bool = True, with_masks: bool = True) -> None:
        super().__init__()
        self.path = annotation_file
        self.unusable: dict[str, list[Any]] = defaultdict(list)
        self.dataset = read_json(annotation_file)
        if not annotated:
            self.dataset.setdefault('annotations', [])
        for key in NEEDED:
            check_entries(self.dataset, key, annotation_file)
        self.dataset['annotations'] = self._usable(with_masks)
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def get_cat_ids(
        self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (), cat_ids: Sequence[int] = ()
    ) -> list[int]:
        """Ids of categories, for ``cat_names`` in the order of the names: pycocotools gives the file's order whatever
        the names' is, and labels would mean other classes than the config says.

        Raises:
            InputError: The file has no category of such a name.
        """
        if not cat_names:
            return super().get_cat_ids(cat_names, sup_names, cat_ids)
        ids = {category['name']: category['id'] for category in self.dataset['categories']}
        absent = [name for name in cat_names if name not in ids]
        if absent:
            raise InputError(
                f'The annotation file {self.path} has no category {some(absent)}, only {some(ids)}: '
                'make the classes of the config (metainfo) those of the file.'
            )
        return [ids[name] for name in cat_names]

    def _usable(self, with_masks: bool) -> list[dict]:
        sizes = {image['id']: (int(image['height']), int(image['width'])) for image in self.dataset['images']}
        categories = {category['id'] for category in self.dataset['categories']}
        usable = []
        for annotation in self.dataset['annotations']:
            if annotation['image_id'] not in sizes:
                self.unusable['of an image that the file does not list'].append(annotation['id'])
                continue
            if annotation['category_id'] not in categories:
                self.unusable['of a category that the file does not list'].append(annotation['id'])
                continue
            size = sizes[annotation['image_id']]
            annotation['iscrowd'] = int(annotation.get('iscrowd') or 0)
            segmentation, flaw = usable_segmentation(annotation.get('segmentation'), *size)
            if not segmentation and annotation['iscrowd']:
                # A crowd is a region to leave alone, and its box is one.
                x, y, w, h = annotation['bbox']
                segmentation, flaw = [np.array([x, y, x + w, y, x + w, y + h, x, y + h], dtype=np.float64)], None
            if flaw:
                self.unusable[flaw].append(annotation['id'])
            if not segmentation and with_masks:
                continue
            annotation['segmentation'] = segmentation
            if not (annotation.get('area') or 0) > 0:
                annotation['area'] = mask_area(annotation, *size)
            usable.append(annotation)
        return usable


def read_classes(ann_file: str) -> tuple[str, ...]:
    """Names of a COCO file's categories in the order of their ids.

    For configs that take the classes from their data: ``from centermask.datasets import read_classes``, after the line
    with ``_base_`` (MMEngine takes a config that imports first for one of its other style).

    Raises:
        InputError: The file is missing, isn't JSON, or has no categories.
    """
    dataset = read_json(ann_file)
    check_entries(dataset, 'categories', ann_file)
    return classes_of(dataset)


def classes_of(dataset: dict) -> tuple[str, ...]:
    """Names of the categories of a file's content in the order of their ids."""
    return tuple(category['name'] for category in sorted(dataset['categories'], key=lambda category: category['id']))


def read_json(path: str) -> dict:
    """The object that a file in COCO's format holds.

    Raises:
        InputError: The file is missing, can't be read, or isn't JSON with an object.
    """
    try:
        dataset = json.loads(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise InputError(f'The annotation file {path} does not exist: correct ann_file and data_root.') from None
    except OSError as error:
        raise InputError(f'The annotation file {path} could not be read: {error.strerror}.') from None
    except json.JSONDecodeError as error:
        raise InputError(
            f'The annotation file {path} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}.'
        ) from None
    except UnicodeDecodeError:
        raise InputError(f'The annotation file {path} is not valid JSON: it is not text in UTF-8.') from None
    except (RecursionError, ValueError) as error:
        why = 'lists nested too deep' if isinstance(error, RecursionError) else 'a number of too many digits'
        raise InputError(f'The annotation file {path} can not be used: it has {why}.') from None
    if not isinstance(dataset, dict):
        raise InputError(
            f'The annotation file {path} is not in COCO format: it must hold an object with the lists {some(NEEDED)}.'
        )
    return dataset


def check_entries(dataset: dict, key: str, path: str) -> None:
    """The list is there, its entries have the needed fields, and ids of one kind, of which none comes twice."""
    entries = dataset.get(key)
    if not isinstance(entries, list):
        raise InputError(f'The annotation file {path} is not in COCO format: it has no list "{key}".')
    for i, field in invalid_fields(entries, key):
        hint = ', a path within the folder of images' if field == 'file_name' else ''
        raise InputError(
            f'The annotation file {path} is not in COCO format: entry {i} of "{key}" has no valid "{field}"{hint}.'
        )
    seen = set()
    for entry in entries:
        if entry['id'] in seen:
            raise InputError(f'The annotation file {path} has two "{key}" with the id {entry["id"]}: make ids unique.')
        seen.add(entry['id'])
    check_kind_of_ids(seen, key, path)
    if key == 'categories':
        names = [entry['name'] for entry in entries]
        if not names:
            raise InputError(f'The annotation file {path} lists no categories: add them.')
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f'The annotation file {path} has two categories "{twice[0]}": rename or merge them.')


def check_kind_of_ids(ids: Iterable, key: str, path: str) -> None:
    """Ids of categories and of images are put in order, by COCO's evaluation too: all are numbers, or all are text."""
    if key != 'annotations' and len({isinstance(number, str) for number in ids}) > 1:
        raise InputError(
            f'The annotation file {path} has ids of "{key}" that are numbers and others that are text: '
            'make all of them numbers.'
        )


def invalid_fields(entries: Sequence, key: str) -> Iterator[tuple[int, str]]:
    """Find entries of the list ``key`` without a field that they need, or with one of the wrong type.

    Yields:
        The entry's place in the list and its first such field.
    """
    optional = OPTIONAL if key == 'annotations' else ()
    for i, entry in enumerate(entries):
        given = entry if isinstance(entry, dict) else {}
        fields = (*NEEDED[key], *(field for field in optional if given.get(field) is not None))
        wrong = next((field for field in fields if not _valid(field, given.get(field))), None)
        if wrong:
            yield i, wrong


def _valid(field: str, value: Any) -> bool:
    if field in ('width', 'height'):
        return is_number(value, LONGEST_SIDE) and value >= 1
    if field == 'iscrowd':
        return isinstance(value, bool) or is_number(value, 1)
    if field == 'area':
        return isinstance(value, float) or is_number(value, LARGEST)
    if field == 'bbox':
        return isinstance(value, list) and len(value) == 4 and all(is_number(v, LARGEST) for v in value)
    if field == 'name':
        return isinstance(value, str) and bool(value)
    if field == 'file_name':
        return isinstance(value, str) and stays_inside(value)
    return isinstance(value, str) or is_number(value, LARGEST)


def is_number(value: Any, largest: float) -> bool:
    """Whether this is a number from ``-largest`` to ``largest``, which NaN isn't."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest


def stays_inside(name: str) -> bool:
    """Whether a path, taken from a folder, can be of something in it: a stranger's file may name any file of ours."""
    try:
        path = os.fsencode(os.path.normpath(name))
    except UnicodeEncodeError:
        return False
    steps = path.split(os.fsencode(os.sep))
    possible = len(path) <= LONGEST_PATH and max(map(len, steps)) <= LONGEST_NAME
    outside = os.path.isabs(name) or steps[0] in (b'..', b'.')
    return bool(name) and possible and not outside and '\0' not in name


def usable_segmentation(segmentation: Any, height: int, width: int) -> tuple[list[np.ndarray] | dict, str | None]:
    """What of an object's segmentation can be used, none or no polygons if nothing can, and what is wrong with it."""
    if not segmentation:
        return [], 'without segmentation'
    if isinstance(segmentation, dict):
        try:
            lengths = run_lengths(segmentation)
        except ValueError:
            return [], 'whose RLE is damaged'
        if not any(lengths[1::2]):
            return [], 'whose RLE is empty'
        if list(segmentation['size']) != [height, width]:
            return [], 'whose RLE is not of the size of its image'
        return mask_utils.frPyObjects({'size': [height, width], 'counts': lengths}, height, width), None
    try:
        polygons = [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
    except (OverflowError, TypeError, ValueError):
        return [], 'whose polygon is not a list of numbers'
    # pycocotools takes memory for every pixel that an outline passes, be it where no image is.
    if any(p.size and np.abs(p).max() > 10 * max(height, width) + 1000 for p in polygons):
        return [], 'whose polygon lies far outside its image'
    good = [p for p in polygons if p.ndim == 1 and len(p) >= 6 and len(p) % 2 == 0 and np.isfinite(p).all()]
    if not good:
        return [], 'whose polygon has under three points'
    return good, None if len(good) == len(polygons) else 'in part, as one polygon has under three points'


def mask_area(annotation: dict, height: int, width: int) -> float:
    """Area of an object's usable segmentation in pixels, of its box where there is none."""
    segmentation = annotation['segmentation']
    if isinstance(segmentation, dict):
        return float(mask_utils.area(segmentation))
    if segmentation:
        return float(mask_utils.area(mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))))
    return annotation['bbox'][2] * annotation['bbox'][3]


def box_has_area(annotation: dict, image: dict) -> bool:
    """Whether MMDetection will take the box: at least a pixel wide and high, and not outside the image."""
    x, y, width, height = annotation['bbox']
    inside = min(x + width, image['width']) > max(x, 0) and min(y + height, image['height']) > max(y, 0)
    return inside and width >= 1 and height >= 1 and annotation['area'] > 0


def some(values: Iterable[Any], limit: int = 10) -> str:
    """Name the first few, and how many more there are."""
    values = [str(value) for value in values]
    more = f' and {len(values) - limit} more' if len(values) > limit else ''
    return ', '.join(values[:limit]) + more
