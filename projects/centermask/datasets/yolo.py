"""Data in YOLO's format as COCO's: ``data.yaml``, ``images/``, and ``labels/`` with a line of corners an object."""

from __future__ import annotations

import os
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import yaml
from tqdm.contrib.concurrent import thread_map

from centermask.datasets.coco_annotations import mask_area, outline_box, shorten
from centermask.datasets.images import check_image, find_images
from centermask.utils.errors import InputError

SPLITS = {'train': ('train',), 'val': ('val', 'valid', 'validation')}


def find_yolo(folder: Path) -> Path | None:
    """Return the file of a folder that names the classes of YOLO's format, None if there is none.

    Raises:
        InputError: There are several.
    """
    files = sorted((*folder.glob('*.yaml'), *folder.glob('*.yml')))
    found = [path for path in files if path.stem == 'data'] or [path for path in files if _names_classes(path)]
    if len(found) > 1:
        raise InputError(f'--data {folder}: {shorten(found)} could each name the classes, leave one.')
    if not found and any(folder.glob('**/labels/**/*.txt')):
        found = [path for path in (folder / 'classes.txt', folder / 'labels' / 'classes.txt') if path.is_file()]
    return found[0] if found else None


def read_yolo(names_file: Path) -> tuple[dict[str, dict], Path]:
    """Read a data set in YOLO's format.

    A line of a label file is a class and the corners of a polygon, or a class and a box (centre x, centre y, width,
    height), in parts of the image's width and height. As Ultralytics reads it, ``labels`` takes the place of the last
    ``images`` in an image's path, and an image without a label file has no objects.

    Args:
        names_file: ``data.yaml``, which names folders or lists of images, or ``classes.txt`` beside ``images/``.

    Returns:
        The content of a file in COCO format by split (``train`` and ``val``, or one of them), and the folder that
        ``file_name`` is relative to.

    Raises:
        InputError: Something that the file names isn't there, no label is, or a line can't be read.
    """
    root = names_file.parent
    if names_file.suffix == '.txt':
        root = root.parent if root.name == 'labels' else root
        config: dict = {'names': _read_lines(names_file), 'train': 'images'}
    else:
        config = _read_yaml(names_file)
        if 'kpt_shape' in config:
            raise InputError(
                f'{names_file} is of key points (kpt_shape), not of outlines: give polygons of the objects.'
            )
    classes = _class_names(config.get('names'), names_file)
    images = {}
    for split, keys in SPLITS.items():
        entries = next((config[key] for key in keys if config.get(key)), None)
        if entries:
            entries = entries if isinstance(entries, list) else [entries]
            images[split] = sorted(
                {*chain.from_iterable(_images_of(entry, config, root, names_file) for entry in entries)}
            )
    if not images:
        raise InputError(f'{names_file} names neither "train" nor "val": add the folders of their images.')
    every = sorted({*chain.from_iterable(images.values())})
    if not any(_label_file(path).is_file() for path in every):
        raise InputError(
            f'{names_file}: none of its {len(every)} images has labels, those of {every[0]} would be '
            f'{_label_file(every[0])}.'
        )
    top = Path(os.path.commonpath([root, *(path.parent for path in every)]))
    read = partial(_read_image, classes=classes)
    images_read = thread_map(read, every, desc=f'Reading {names_file}', unit='image', disable=None)
    found = dict(zip(every, images_read, strict=True))
    return {split: _as_coco(paths, found, classes, top) for split, paths in images.items()}, top


def _names_classes(path: Path) -> bool:
    try:
        return _read_yaml(path).keys() >= {'names', 'train'}
    except InputError:  # it may be of any program
        return False


def _read_yaml(path: Path) -> dict:
    try:
        content = yaml.load(path.read_bytes(), yaml.BaseLoader)  # text stays text: a class may be called "no" or 1
    except OSError as error:
        raise InputError(f'{path} could not be read: {error.strerror}.') from None
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f'{path} is not valid YAML: {" ".join(str(error).split())}.') from None
    return content if isinstance(content, dict) else {}


def _read_lines(path: Path) -> list[str]:
    try:
        return [line for line in map(str.strip, path.read_text(encoding='utf-8-sig').splitlines()) if line]
    except (OSError, ValueError) as error:
        raise InputError(f'{path} could not be read as text: {error}.') from None


def _class_names(names: list | dict | None, path: Path) -> dict[int, str]:
    """Return the names of classes by their numbers."""
    try:
        items = names.items() if isinstance(names, dict) else enumerate(names or ())
        classes = {int(number): name for number, name in items if isinstance(names, list | dict)}
    except (TypeError, ValueError):
        classes = {}
    if not classes or not all(name and isinstance(name, str) for name in classes.values()):
        raise InputError(f'{path} has no valid "names": list the names of the classes.')
    return dict(sorted(classes.items()))


def _images_of(entry: str, config: dict, folder: Path, names_file: Path) -> list[Path]:
    """Return the images of a folder, or of a text file with a path on each line."""
    root = folder / str(config.get('path') or '')
    path = _find(str(entry), [root, folder])
    if path is None:
        raise InputError(
            f'{names_file} names {entry}, which is not there: put it there, or correct the file '
            '(without "val" a part of "train" validates).'
        )
    if path.is_dir():
        return find_images(str(path))
    listed = {name: _find(name, [path.parent, root, folder]) for name in _read_lines(path)}
    if missing := [name for name, file in listed.items() if file is None]:
        raise InputError(f'{path} lists {shorten(missing, 3)}, which are not there: correct the file.')
    if not listed:
        raise InputError(f'{path} lists no images: correct the file, or {names_file}, which names it.')
    return [file for file in listed.values() if file]


def _find(name: str, roots: list[Path]) -> Path | None:
    """Find a path that may be of another machine: the longest end of it that exists in one of the folders."""
    parts = Path(name.replace('\\', '/')).parts
    candidates = (root.joinpath(*parts[i:]) for i in range(len(parts)) for root in roots)
    found = next((path for path in candidates if path.exists()), None)
    return Path(os.path.abspath(found)) if found else None  # without "..", links as they are


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == 'images':
            parts[i] = 'labels'
            break
    return Path(*parts).with_suffix('.txt')


def _read_image(path: Path, classes: dict[int, str]) -> dict:
    """Return an image's size and its objects, with segmentations and boxes in pixels."""
    width, height = check_image(path).size
    label_file = _label_file(path)
    objects = []
    for number, line in enumerate(_read_lines(label_file) if label_file.is_file() else (), start=1):
        where = f'{label_file}, line {number}'
        try:
            label, *values = map(float, line.split())
        except ValueError:
            raise InputError(f'{where} is not a class and numbers: it is "{line[:60]}".') from None
        if label not in classes:
            raise InputError(f'{where} has the class {label:g}, which is not one of {shorten(classes)}.')
        if not all(-1 < value < 2 for value in values):
            raise InputError(
                f'{where} has a value outside of the image: they must be parts of its width and height, from 0 to 1.'
            )
        entry: dict = {'category_id': int(label), 'segmentation': []}
        if len(values) == 4:
            x, y, w, h = values
            entry['bbox'] = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        else:
            points = np.clip(values, 0, 1)
            points[0::2] *= width
            points[1::2] *= height
            points = points.round(3)
            entry['segmentation'] = [points.tolist()]
            if len(points) >= 6 and len(points) % 2 == 0:  # the reader refuses others
                entry['bbox'] = outline_box([points]).tolist()
        if 'bbox' in entry:
            entry['area'] = mask_area(entry, height, width)
        objects.append(entry)
    return {'width': width, 'height': height, 'objects': objects}


def _as_coco(paths: list[Path], found: dict[Path, dict], classes: dict[int, str], top: Path) -> dict:
    content: dict[str, list] = {'images': [], 'annotations': []}
    for number, path in enumerate(paths, start=1):
        image = {**found[path], 'id': number, 'file_name': path.relative_to(top).as_posix()}
        for entry in image.pop('objects'):
            content['annotations'].append(
                {'id': len(content['annotations']) + 1, 'image_id': number, 'iscrowd': 0, **entry}
            )
        content['images'].append(image)
    return {**content, 'categories': [{'id': number, 'name': name} for number, name in classes.items()]}
