"""A folder of the user's own data in COCO format: which files train, which validate, and where their images are."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from centermask.datasets.coco_annotations import CocoReader, classes_of, read_json, shorten
from centermask.utils.errors import InputError, RunError

# Of one file without a split, the part of the images with objects that validates.
VALIDATION_RATIO = 0.2
LAYOUTS = (
    'train.json and val.json, annotations/instances_train*.json and annotations/instances_val*.json, or one JSON file '
    'in COCO format'
)


@dataclass
class Split:
    """One annotation file and the folder of its images, as absolute paths.

    Attributes:
        ann_file, images: The paths.
        content: Content of the file.
        image_ids: Ids of the images with an object that isn't a crowd, which are those trained on; none where no object
            has an outline.
        objects: Number of objects by class, crowds not counted; classes without objects are absent.
        boxes: Of the objects of each of these images: x1, y1, x2, y2 in pixels, shape (G, 4), and the width and height
            of the image.
    """

    ann_file: Path
    images: Path
    content: dict
    image_ids: list[int | str]
    objects: Counter[str]
    boxes: list[tuple[np.ndarray, int, int]]


@dataclass
class CocoFolder:
    """The data in a folder.

    Attributes:
        train: What to train on; None where there are only validation data and they are enough.
        val: What to validate and test on.
        classes: Names in the order of the training data's category ids.
        remarks: Sentences for the user.
    """

    train: Split | None
    val: Split
    classes: tuple[str, ...]
    remarks: list[str]


def find_data(folder: Path, work_dir: Path, training: bool = True) -> CocoFolder:
    """Find the annotation files and images in a folder.

    Args:
        folder: Holds ``train.json`` and ``val.json``, or ``annotations/instances_{train,val}*.json``, or one JSON file,
            which is split. Images lie in a folder of the file's name (``train``, ``train2017``) there or in ``images``,
            all together in ``images``, or directly in the folder.
        work_dir: The two parts of a file that is split are written into its ``data/``.
        training: False if validation data alone are enough.

    Raises:
        InputError: The folder is missing or holds none of these, a file isn't in COCO format, images aren't found, the
            validation data lack a category, or there are too few images to split.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise InputError(f'--data {folder}: there is no such folder, name one that holds {LAYOUTS}.')
    train_file, val_file = (_find_file(folder, f'{name}.json', f'instances_{name}*.json') for name in ('train', 'val'))
    if not val_file:
        only_file = train_file or _find_file(folder, '*.json', '*.json')
        if not only_file:
            raise InputError(f'--data {folder}: no annotations there, it must hold {LAYOUTS}.')
        return _split(_read(only_file, folder), work_dir)
    val = _read(val_file, folder)
    if train_file:
        train = _read(train_file, folder)
        return CocoFolder(train, val, classes_of(train.content), _compare(train, val))
    if training:
        raise InputError(
            f'--data {folder}: {val_file} has no training data beside it, '
            f'add {val_file.name.replace("val", "train")} or leave one file under another name to have it split.'
        )
    return CocoFolder(None, val, classes_of(val.content), [])


def _find_file(folder: Path, pattern: str, pattern_in_annotations: str) -> Path | None:
    found = sorted(folder.glob(pattern)) or sorted((folder / 'annotations').glob(pattern_in_annotations))
    if len(found) > 1:
        raise InputError(
            f'--data {folder}: {shorten(found)} could each be the annotations, '
            'leave one, or name them train.json and val.json.'
        )
    return found[0] if found else None


def _read(ann_file: Path, folder: Path) -> Split:
    """Read a file, and find the folder of its images: the first of the usual ones that holds one of them."""
    split = _as_split(ann_file, folder, read_json(ann_file))
    if not split.content['images']:
        raise InputError(f'The annotation file {ann_file} lists no images: add them.')
    name = split.content['images'][0]['file_name']
    tag = ann_file.stem.removeprefix('instances_')
    candidates = [folder / tag, folder / 'images' / tag, folder / 'images', folder]
    found = [candidate for candidate in candidates if (candidate / name).is_file()]
    if not found:
        raise InputError(
            f'The images of {ann_file}, of which one is {name}, are in none of {shorten(candidates)}: '
            'put them into one of these folders, or correct "file_name".'
        )
    split.images = found[0]
    return split


def _as_split(ann_file: Path, images: Path, content: dict) -> Split:
    reader = CocoReader(content, ann_file)
    reader.raise_failure()
    names = {category['id']: category['name'] for category in content['categories']}
    objects = [annotation for annotation in reader.content['annotations'] if not annotation['iscrowd']]
    boxes = defaultdict(list)
    for entry in objects:
        boxes[entry['image_id']].append(entry['bbox'])
    learnable = any(entry['segmentation'] for entry in objects)  # without an outline there is no mask to learn
    used = [image for image in content['images'] if learnable and image['id'] in boxes]
    return Split(
        ann_file,
        images,
        content,
        [image['id'] for image in used],
        Counter(names[each['category_id']] for each in objects),
        [(_as_corners(boxes[image['id']]), int(image['width']), int(image['height'])) for image in used],
    )


def _as_corners(boxes: list[list[float]]) -> np.ndarray:
    """Return boxes given by their corner, width and height as x1, y1, x2, y2."""
    corners = np.array(boxes, dtype=np.float64)
    corners[:, 2:] += corners[:, :2]
    return corners


def _compare(train: Split, val: Split) -> list[str]:
    """Return remarks on the classes and images of the two splits."""
    classes = classes_of(train.content)
    absent = set(classes) - set(classes_of(val.content))
    if absent:
        raise InputError(
            f'{val.ann_file} has no category {shorten(sorted(absent))}, which {train.ann_file} has: '
            'give both files the same categories.'
        )
    remarks = []
    if unknown := [name for name in val.objects if name not in classes]:
        lost = sum(val.objects[name] for name in unknown)
        remarks.append(
            f'{lost} of the {val.objects.total()} objects of {val.ann_file} are of {shorten(unknown)}, '
            f'which {train.ann_file} lacks: they are left out of the validation.'
        )
    paths = [{split.images / image['file_name'] for image in split.content['images']} for split in (train, val)]
    if shared := len(paths[0] & paths[1]):
        remarks.append(f'{shared} images are in the training and in the validation data: the AP will be too high.')
    return remarks


def _split(data: Split, work_dir: Path) -> CocoFolder:
    """Split one file by the hash of its images' ids, so that few images change parts where others are added."""
    if len(data.image_ids) < 2:
        raise InputError(
            f'The annotation file {data.ann_file} has {len(data.image_ids)} images with objects, and some must be kept '
            'to validate on: annotate at least two, better hundreds.'
        )
    ranked = sorted(data.image_ids, key=_hash)
    validating = set(ranked[: max(1, round(VALIDATION_RATIO * len(ranked)))])
    parts = []
    for name in ('train', 'val'):
        part = {
            **data.content,
            'images': [i for i in data.content['images'] if (i['id'] in validating) == (name == 'val')],
            'annotations': [a for a in data.content['annotations'] if (a['image_id'] in validating) == (name == 'val')],
        }
        path = (work_dir / 'data' / f'{name}.json').absolute()
        _write(path, part)
        parts.append(_as_split(path, data.images, part))
    train, val = parts
    remarks = [
        f'{data.ann_file} is split by image: {len(train.image_ids)} images with objects to train on, '
        f'{len(val.image_ids)} to validate on, in {path.parent}.'
    ]
    return CocoFolder(train, val, classes_of(data.content), remarks)


def _write(path: Path, content: dict) -> None:
    """Write a file that each process of a training writes, with the same content."""
    temporary = path.with_name(f'.{os.getpid()}-{path.name}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding='utf-8')
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"{path} can't be written ({error.strerror}): free some space or give another --work-dir."
        ) from error


def _hash(image_id: int | str) -> bytes:
    return hashlib.sha256(str(image_id).encode()).digest()
