"""A folder of the user's own data in COCO's format: which files train, which validate, and where their images are."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from centermask.datasets.annotations import NEEDED, check_entries, classes_of, read_json, some
from centermask.utils.errors import InputError, RunError

# Of one file without a split, the share of images that validates.
VALIDATION_SHARE = 0.2
LAYOUTS = (
    'train.json and val.json, annotations/instances_train*.json and annotations/instances_val*.json, or one JSON file '
    "in COCO's format"
)
# How many images are looked for in each folder that may be theirs.
LOOKED_FOR = 50


@dataclass
class Split:
    """One annotation file and the folder that its images are in, absolute paths.

    Attributes:
        image_ids: of the images with an object that isn't a crowd, which are those trained on.
        present: names of the classes of which there are objects.
    """

    ann_file: Path
    images: Path
    image_ids: list[int | str]
    present: list[str]


@dataclass
class CocoFolder:
    """What a folder holds.

    Attributes:
        train: what to train on; None where only validation data are there and are enough.
        val: what to validate and test on.
        classes: names in the order of the training data's category ids.
        remarks: sentences for the user to read.
    """

    train: Split | None
    val: Split
    classes: tuple[str, ...]
    remarks: list[str]


def find_data(folder: Path, work_dir: Path, training: bool = True) -> CocoFolder:
    """Find out what a folder holds.

    Args:
        folder: holds ``train.json`` and ``val.json``, or ``annotations/instances_{train,val}*.json``, or one JSON file,
            which is split; images lie in ``train/`` and ``val/`` (with the file's year or without), in ``images/``, or
            beside the file.
        work_dir: where the two parts of a file that is split are written, under ``data/``.
        training: without it, validation data alone are enough.

    Raises:
        InputError: the folder is missing or holds none of these, a file isn't COCO's, images aren't found, the
            validation data lack a category or have objects of others alone, or there are too few images to split.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise InputError(f'--data {folder}: there is no such folder, name one that holds {LAYOUTS}.')
    files = _split_files(folder)
    if 'val' not in files:
        return _split(files.get('train') or _only_file(folder), folder, work_dir)
    if 'train' not in files and training:
        raise InputError(
            f'--data {folder}: {files["val"]} has no training data beside it, '
            f'add {files["val"].name.replace("val", "train")} or name one file otherwise to have it split.'
        )
    contents = {name: _read(path) for name, path in files.items()}
    splits = {name: _locate(files[name], content, folder) for name, content in contents.items()}
    first = contents.get('train', contents['val'])
    classes = classes_of(first)
    absent = set(classes) - set(classes_of(contents['val']))
    if absent:
        raise InputError(
            f'--data {folder}: {files["val"]} has no category {some(sorted(absent))}, which {files["train"]} has: '
            'give both files the same categories.'
        )
    remarks = []
    counts = _count(contents['val'])
    if unknown := [name for name in counts if name not in classes]:
        total, lost = counts.total(), sum(counts[name] for name in unknown)
        what = f'{lost} of the {total} objects of {files["val"]} are of {some(unknown)}, which {files["train"]} has not'
        if lost == total:
            raise InputError(f'--data {folder}: {what}: give both files the same categories.')
        remarks.append(f'{what}: they are left out of the validation.')
    if 'train' in splits and (shared := _shared(contents, splits)):
        remarks.append(f'{shared} images are in the training and in the validation data: the AP will be too good.')
    return CocoFolder(splits.get('train'), splits['val'], classes, remarks)


def _split_files(folder: Path) -> dict[str, Path]:
    """The annotation files of ``train`` and of ``val``, if they are there."""
    files = {}
    for name in ('train', 'val'):
        found = [folder / f'{name}.json'] if (folder / f'{name}.json').is_file() else []
        found = found or sorted((folder / 'annotations').glob(f'instances_{name}*.json'))
        if len(found) > 1:
            raise InputError(
                f'--data {folder}: {some(found)} could each be the {name} annotations, '
                f'leave one or name it {name}.json.'
            )
        if found:
            files[name] = found[0]
    return files


def _only_file(folder: Path) -> Path:
    found = [path for place in (folder, folder / 'annotations') for path in sorted(place.glob('*.json'))]
    if not found:
        raise InputError(f'--data {folder}: no annotations there, it must hold {LAYOUTS}.')
    if len(found) > 1:
        raise InputError(
            f'--data {folder}: {some(found)} could each be the annotations, '
            'leave one, or name them train.json and val.json.'
        )
    return found[0]


def _read(path: Path) -> dict:
    content = read_json(str(path))
    for key in NEEDED:
        check_entries(content, key, str(path))
    return content


def _locate(ann_file: Path, content: dict, folder: Path) -> Split:
    """Find the folder of a file's images: the one of those usual that holds the most of them."""
    tag = ann_file.stem.removeprefix('instances_')
    candidates = [folder / tag, folder / tag / 'images', folder / 'images' / tag, folder / 'images', folder]
    plain = tag.rstrip('0123456789')  # train2017's may be in train/ as well
    candidates += [ann_file.parent, folder / plain, folder / plain / 'images', folder / 'images' / plain]
    names = [image['file_name'] for image in content['images']]
    if not names:
        raise InputError(f'The annotation file {ann_file} lists no images: add them.')
    names = names[:: max(1, len(names) // LOOKED_FOR)]
    there = [sum((candidate / name).is_file() for name in names) for candidate in candidates]
    if not any(there):
        places = some(dict.fromkeys(str(candidate) for candidate in candidates))
        raise InputError(
            f'The images of {ann_file}, of which one is {names[0]}, are in none of {places}: '
            'put them into one of these folders, or correct "file_name".'
        )
    return Split(ann_file, candidates[there.index(max(there))], *_objects(content))


def _objects(content: dict) -> tuple[list[int | str], list[str]]:
    """Ids of the images with objects, and names of the classes that have some; a crowd isn't one."""
    names = {category['id']: category['name'] for category in content['categories']}
    objects = [a for a in content['annotations'] if not a.get('iscrowd') and a['category_id'] in names]
    used, present = {a['image_id'] for a in objects}, {a['category_id'] for a in objects}
    return [image['id'] for image in content['images'] if image['id'] in used], [
        names[i] for i in names if i in present
    ]


def _count(content: dict) -> Counter[str]:
    """How many objects there are of each class; a crowd isn't one."""
    names = {category['id']: category['name'] for category in content['categories']}
    objects = (a['category_id'] for a in content['annotations'] if not a.get('iscrowd'))
    return Counter(names[category] for category in objects if category in names)


def _shared(contents: dict[str, dict], splits: dict[str, Split]) -> int:
    train, val = (
        {splits[name].images / image['file_name'] for image in contents[name]['images']} for name in ('train', 'val')
    )
    return len(train & val)


def _split(ann_file: Path, folder: Path, work_dir: Path) -> CocoFolder:
    """Split one file by its images' ids: an image's part doesn't depend on which others there are."""
    content = _read(ann_file)
    whole = _locate(ann_file, content, folder)
    annotated = whole.image_ids
    if len(annotated) < 2:
        raise InputError(
            f'The annotation file {ann_file} has {len(annotated)} images with objects, and some must be kept to '
            'validate on: annotate at least two, better hundreds.'
        )
    places = {image['id']: _place(image['id']) for image in content['images']}
    validating = {image_id for image_id, place in places.items() if place < VALIDATION_SHARE}
    # Chance may leave one part of a handful empty.
    if validating.isdisjoint(annotated):
        validating.add(min(annotated, key=places.__getitem__))
    elif validating.issuperset(annotated):
        validating.remove(max(annotated, key=places.__getitem__))

    parts: dict[str, Split] = {}
    for name, ids in (('train', places.keys() - validating), ('val', validating)):
        part = {
            **content,
            'images': [image for image in content['images'] if image['id'] in ids],
            'annotations': [annotation for annotation in content['annotations'] if annotation['image_id'] in ids],
        }
        path = (work_dir / 'data' / f'{name}.json').absolute()
        _write(path, part)
        parts[name] = Split(path, whole.images, *_objects(part))
    train, val = parts['train'], parts['val']
    remarks = [
        f'{ann_file} is split by image: {len(train.image_ids)} images with objects to train on, {len(val.image_ids)} '
        f'to validate on, in {train.ann_file.parent}.'
    ]
    if unlearned := [name for name in val.present if name not in train.present]:
        remarks.append(f'The part to train on has no object of {some(unlearned)}: annotate more images of these.')
    return CocoFolder(train, val, classes_of(content), remarks)


def _place(image_id: int | str) -> float:
    """A number in [0, 1) for an id, the same on every machine."""
    return int.from_bytes(hashlib.sha256(str(image_id).encode()).digest()[:4], 'big') / 2**32


def _write(path: Path, content: dict) -> None:
    """Write a file that several processes may write at once, each the same."""
    aside = path.with_name(f'.{os.getpid()}-{path.name}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(content))
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunError(f"{path} can't be written ({error.strerror}): make room or give another --work-dir.") from error
