"""A folder of the user's own data: which files train, which validate, and where their images are."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from unicodedata import normalize

import numpy as np

from centermask.datasets.coco_annotations import (
    CocoReader,
    as_text,
    classes_of,
    corners,
    groups_of,
    read_json,
    shorten,
)
from centermask.datasets.image_folder import ImageFolder
from centermask.datasets.mask_images import find_masks, read_masks
from centermask.datasets.yolo import find_yolo, read_yolo
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError

# Of one file without a split, the part of the images with objects that validates.
VALIDATION_RATIO = 0.2
# Images of a file that are looked for in each folder that may hold them.
SAMPLE = 50
LAYOUTS = (
    'train.json and val.json, annotations/instances_train*.json and annotations/instances_val*.json, '
    "train/_annotations.coco.json and valid/_annotations.coco.json, one JSON file in COCO format, YOLO's data.yaml, "
    'or images/ and masks/'
)
NAMES = {'train': ('train', 'training', 'trainval'), 'val': ('val', 'valid', 'validation'), 'test': ('test', 'testing')}
# Paths of annotation files in lower case, N being one of a split's names: of the first that exist, there must be one.
SPLIT_FILES = (
    r'N\.json',
    r'annotations/instances_N(?![a-z])[^/]*\.json',
    r'annotations/N(?![a-z])[^/]*\.json',
    r'N\d*/_annotations\.coco\.json',
    r'N\d*/[^/]*\.json',
    r'(N\d*/annotations|annotations/N\d*)/[^/]*\.json',
    r'(annotations/)?([^/]*[^a-z/])?N(?![a-z])[^/]*\.json',
)
SINGLE_FILES = (
    r'(_?annotations(\.coco)?|instances(_default)?|coco|dataset|labels|result)\.json',
    r'[^/]*\.json',
    r'annotations/instances_[^/]*\.json',
    r'annotations/[^/]*\.json',
    r'[^/]*/_annotations\.coco\.json',
)
CONVERTERS = {
    'LabelMe': 'pip install labelme2coco==0.2.6 && cd {folder} && labelme2coco . .',
    'CVAT': "pip install 'datumaro[cli]==1.13.12' && datum convert -i {folder} -if cvat -f coco_instances -o OUT "
    '-- --save-media',
    'Pascal VOC': "pip install 'datumaro[cli]==1.13.12' && datum convert -i {folder} -if voc -f coco_instances -o OUT "
    '-- --save-media',
}


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
        folder: Holds a layout of ``LAYOUTS``, or one folder that does. Images of COCO files lie in a folder of the
            file's name or split (``train2017``, ``valid``) there, in ``images`` or beside the file, all together in
            ``images``, or anywhere under names that no two share.
        work_dir: What is converted, split or corrected is written into its ``data/``.
        training: False if validation data alone are enough.

    Raises:
        InputError: The folder is missing or holds none of these, a file can't be used, images aren't found, the
            validation data lack a category, or there are too few images to split.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise InputError(f'--data {folder}: there is no such folder, name one that holds {LAYOUTS}.')
    splits, remarks = _find_splits(_innermost(folder), work_dir / 'data')
    if not splits:
        raise InputError(f'--data {folder}: {_recognise(folder)}.')
    train, val = splits.get('train'), splits.get('val')
    if train and not val:
        train, val = _split(train, work_dir / 'data')
        remarks.append(
            f'{splits["train"].ann_file} is split by image: {len(train.image_ids)} images with objects to train on, '
            f'{len(val.image_ids)} to validate on, in {val.ann_file.parent}.'
        )
        if 'test' in splits:
            remarks.append(f'{splits["test"].ann_file} is left out, it neither trains nor validates.')
    val = val or splits['test']
    if train:
        remarks += _compare(train, val)
    elif training:
        raise InputError(
            f'--data {folder}: {val.ann_file} has no training data beside it, '
            'add train.json or leave one file under another name to have it split.'
        )
    if not val.objects:
        remarks.append(f'{val.ann_file} has no objects to validate on: the AP will be undefined, which is shown as -1.')
    categories = (train or val).content
    if groups := groups_of(categories):
        remarks.append(f'{shorten(groups)} only groups other categories and has no objects: it is not a class.')
    return CocoFolder(train, val, classes_of(categories), remarks)


def _innermost(folder: Path) -> Path:
    """Return the folder that an archive was unpacked to, where it holds nothing but another folder."""
    splits = {name for names in NAMES.values() for name in names}
    while True:
        entries = [path for path in folder.iterdir() if not path.name.startswith(('.', '__MACOSX'))]
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].name.lower() in splits:
            return folder
        folder = entries[0]


def _find_splits(folder: Path, written: Path) -> tuple[dict[str, Split], list[str]]:
    """Return what there is of the training, validation and test data, and remarks on it."""
    files = {split: file for split in NAMES if (file := _find_file(folder, SPLIT_FILES, NAMES[split]))}
    if not files and not (yolo := find_yolo(folder)) and (file := _find_file(folder, SINGLE_FILES)):
        files = {'train': file}
    if files:
        if 'val' in files:
            files.pop('test', None)
        splits = {split: _read(file, folder, split, written) for split, file in files.items()}
        return splits, [
            f'The images of {files[split]} lie in other folders than "file_name" says, {data.ann_file} has their paths.'
            for split, data in splits.items()
            if data.ann_file != files[split]
        ]
    if yolo:
        contents, images = read_yolo(yolo)
        remarks = [f"{yolo} is in YOLO's format."]
    elif masks := find_masks(folder):
        contents, remarks = read_masks(folder, masks)
        contents, images = _by_folder(contents), folder
        remarks.insert(0, f'{folder} holds {len(masks.masks)} images and masks.')
    else:
        return {}, []
    splits = {split: _write_split(written / f'{split}.json', images, part) for split, part in contents.items()}
    return splits, [f'{remarks[0]} It is converted, into {written}.', *remarks[1:]]


def _find_file(folder: Path, patterns: tuple[str, ...], names: tuple[str, ...] = ()) -> Path | None:
    """Return the one JSON file of the first pattern that any file has, up to two folders deep."""
    files = {
        path.relative_to(folder).as_posix().lower(): path
        for depth in ('*', '*/*', '*/*/*')
        for path in sorted(folder.glob(f'{depth}.json'))
    }
    for pattern in patterns:
        pattern = pattern.replace('N', f'({"|".join(names)})')
        found = [path for name, path in files.items() if re.fullmatch(pattern, name)]
        if len(found) > 1:
            _read_coco(found[0], folder)  # LabelMe has a file an image
            raise InputError(
                f'--data {folder}: {shorten(found)} could each be the annotations, '
                'leave one, or name them train.json and val.json.'
            )
        if found:
            return found[0]
    return None


def _read_coco(ann_file: Path, folder: Path) -> dict:
    """Read a JSON file, and refuse those of other formats by their names."""
    content = read_json(ann_file)
    if 'shapes' in content:
        raise InputError(f'--data {folder}: {_convert("LabelMe", ann_file.parent)}.')
    return content


def _recognise(folder: Path) -> str:
    """Return what a folder without usable annotations seems to hold, and what to do."""
    files = {suffix: next(folder.rglob(f'*{suffix}'), None) for suffix in ('.json', '.xml', '.txt')}
    with suppress(InputError):
        if files['.json'] and 'shapes' in read_json(files['.json']):
            return _convert('LabelMe', files['.json'].parent)
    if files['.xml']:
        with files['.xml'].open('rb') as file:
            head = file.read(2000)
        if b'<annotation' in head:
            return _convert('CVAT' if b'<annotations' in head else 'Pascal VOC', folder)
    if files['.txt'] and 'labels' in files['.txt'].parts:
        return f'{files[".txt"]} seems to be in the format of YOLO, add data.yaml with "names" and "train"'
    return f'no annotations there, it must hold {LAYOUTS}'


def _convert(name: str, folder: Path) -> str:
    command = CONVERTERS[name].format(folder=folder)
    return f'the annotations are in the format of {name}, convert them and give the result to --data: {command}'


def _by_folder(content: dict) -> dict[str, dict]:
    """Divide content by the splits that the folders of its images are named after; others train."""

    def split_of(image: dict) -> str:
        words = re.split(r'[^a-z]+', str(Path(image['file_name']).parent).lower())
        return next((split for split, names in NAMES.items() if {*names} & {*words}), 'train')

    splits = {image['id']: split_of(image) for image in content['images']}
    return {
        split: _select(content, {image_id for image_id, of in splits.items() if of == split})
        for split in sorted({*splits.values()})
    }


def _read(ann_file: Path, folder: Path, split: str, written: Path) -> Split:
    """Read a file, and find the folder of its images: of the usual ones the first that holds most of a sample."""
    data = _as_split(ann_file, folder, _read_coco(ann_file, folder))
    images = data.content['images']
    if not images:
        raise InputError(f'The annotation file {ann_file} lists no images: add them.')
    sample = [image['file_name'] for image in images[:: -(-len(images) // SAMPLE)]]
    names = [ann_file.stem.removeprefix('instances_'), *NAMES[split]]
    candidates = [folder / path for name in names for path in (name, f'images/{name}', f'{name}/images')]
    candidates += [place / path for place in (ann_file.parent, folder) for path in ('images', '', 'data')]
    held = {path: _count(sample, path) for path in candidates if path.is_dir()}
    data.images = max(held, key=lambda path: held[path])
    if held[data.images] < len(sample):
        moved = _find_by_name(images, folder)
        if len(moved) > _count([image['file_name'] for image in images], data.images):
            for image in images:
                image['file_name'] = moved.get(image['file_name'], image['file_name'])
            return _write_split(written / f'{split}.json', folder, data.content)
    if not held[data.images]:
        raise InputError(
            f'The images of {ann_file}, of which one is {sample[0]}, are in none of {shorten(held)}: '
            'put them into one of these folders, or correct "file_name".'
        )
    return data


def _count(names: list[str], folder: Path) -> int:
    """Return how many images a folder holds."""
    images = ImageFolder(folder)
    return sum(images.find(name) is not None for name in names)


def _find_by_name(images: list[dict], folder: Path) -> dict[str, str]:
    """Return the paths within a folder of files that have the names of images, in any folder, where only one has."""

    def key(path: str) -> str:
        return normalize('NFC', PureWindowsPath(path).name).casefold()  # which takes both kinds of slashes

    by_name: dict[str, list[Path]] = {key(image['file_name']): [] for image in images}
    for path in folder.rglob('*'):
        by_name.get(key(path.name), []).append(path)
    found = {image['file_name']: by_name[key(image['file_name'])] for image in images}
    unique = Counter(key(name) for name in found)
    return {
        name: paths[0].relative_to(folder).as_posix()
        for name, paths in found.items()
        if len(paths) == 1 and unique[key(name)] == 1
    }


def _as_split(ann_file: Path, images: Path, content: dict) -> Split:
    """Return the split that a file's content makes, with images, classes and boxes as the reader normalises them."""
    reader = CocoReader(content, ann_file)
    reader.raise_failure()
    content = {**content, **{key: reader.content[key] for key in ('images', 'categories')}}
    names = {category['id']: category['name'] for category in content['categories']}
    objects = [annotation for annotation in reader.content['annotations'] if not annotation['iscrowd']]
    of_image = defaultdict(list)
    for entry in objects:
        of_image[entry['image_id']].append(entry)
    learnable = any(entry['segmentation'] for entry in objects)  # without an outline there is no mask to learn
    used = [image for image in content['images'] if learnable and image['id'] in of_image]
    return Split(
        ann_file,
        images,
        content,
        [image['id'] for image in used],
        Counter(names[each['category_id']] for each in objects),
        [(corners(of_image[image['id']]), int(image['width']), int(image['height'])) for image in used],
    )


def _compare(train: Split, val: Split) -> list[str]:
    """Return remarks on the classes and images of the two splits."""
    classes = classes_of(train.content)
    absent = set(classes) - {category['name'] for category in val.content['categories']}
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


def _split(data: Split, written: Path) -> tuple[Split, Split]:
    """Split one file by the hash of its images' names, so that few images change parts where others are added."""
    if len(data.image_ids) < 2:
        raise InputError(
            f'The annotation file {data.ann_file} has {len(data.image_ids)} images with objects, and some must be kept '
            'to validate on: annotate at least two, better hundreds.'
        )
    used = {*data.image_ids}
    ranked = sorted((_hash(image['file_name']), image['id']) for image in data.content['images'] if image['id'] in used)
    validating = {image_id for _, image_id in ranked[: max(1, round(VALIDATION_RATIO * len(ranked)))]}
    training = {image['id'] for image in data.content['images']} - validating
    train, val = (
        _write_split(written / f'{name}.json', data.images, _select(data.content, ids))
        for name, ids in (('train', training), ('val', validating))
    )
    return train, val


def _select(content: dict, image_ids: set) -> dict:
    """Return the content with some of its images."""
    names = {*map(as_text, image_ids)}  # files mix 1 and "1"
    return {
        **content,
        'images': [image for image in content['images'] if image['id'] in image_ids],
        'annotations': [entry for entry in content['annotations'] if as_text(entry['image_id']) in names],
    }


def _write_split(path: Path, images: Path, content: dict) -> Split:
    """Write a split whose content is not that of a file of the user's."""
    path = path.absolute()
    split = _as_split(path, images, content)
    atomic_write_text(path, json.dumps(content))  # each process of a training does, with the same content
    return split


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
