"""COCO's panoptic format: a JSON file of segments, and a PNG an image whose colours are the ids of its segments."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmdet.datasets import CocoPanopticDataset
from mmdet.evaluation.functional import INSTANCE_OFFSET

from centermask.datasets.coco_annotations import as_text, is_relative_path, read_json
from centermask.datasets.image_folder import ImageFolder
from centermask.utils.atomic_io import atomic_write, atomic_write_text
from centermask.utils.coco_ids import STUFF_IDS, THING_IDS
from centermask.utils.errors import InputError, RunError

THINGS = CocoPanopticDataset.METAINFO['thing_classes']
STUFF = CocoPanopticDataset.METAINFO['stuff_classes']
LARGEST_ID = 2**24 - 1


class Category(NamedTuple):
    """A category of a panoptic file; things have instances, stuff has none."""

    id: int
    name: str
    isthing: bool


class PanopticAnnotations:
    """The index of a panoptic file, with its PNGs.

    Args:
        ann_file: Path of the JSON file.
        folder: Folder of its PNGs.

    Attributes:
        categories: In the order of the ids.
        things, stuff: Those of each kind.
        images: Entries of the file's images, by their ids as text.

    Raises:
        InputError: The file is missing or isn't in COCO's panoptic format, names a category that it doesn't list, has
            an image or a segment twice or no segments, or PNGs are missing.
    """

    def __init__(self, ann_file: str | Path, folder: str | Path) -> None:
        self.path, self.folder = str(ann_file), str(folder)
        content = read_json(ann_file)
        self.categories = _read_categories(content, self.path)
        self.things = [category for category in self.categories if category.isthing]
        self.stuff = [category for category in self.categories if not category.isthing]
        self.images = {}
        for image in _entries(content, 'images', self.path):
            _file_name(image, self.path)
            self.images[as_text(_field(image, 'id', self.path))] = image
        self._segments: dict[str, list[dict]] = {}
        self._files: dict[str, str] = {}
        self._index(_entries(content, 'annotations', self.path))

    def _index(self, annotations: list[dict]) -> None:
        known = {category.id for category in self.categories}
        on_disk, missing = ImageFolder(self.folder), []
        for entry in annotations:
            image, name = as_text(_field(entry, 'image_id', self.path)), _file_name(entry, self.path)
            segments = _entries(entry, 'segments_info', self.path)
            if image not in self.images:
                raise InputError(
                    f'The panoptic file {self.path} has segments of the image {image}, which its list "images" lacks: '
                    'add it there.'
                )
            if image in self._segments:
                raise InputError(f'The panoptic file {self.path} lists the image {image} twice: leave one of them out.')
            for segment in segments:
                number, category = _field(segment, 'id', self.path), _field(segment, 'category_id', self.path)
                if not isinstance(category, int) or category not in known:
                    raise InputError(
                        f'The panoptic file {self.path} gives segment {number} of {name} the category {category}, '
                        'which its list "categories" lacks: add it there.'
                    )
                if not isinstance(number, int) or not 0 < number <= LARGEST_ID:
                    raise InputError(
                        f'The panoptic file {self.path} gives a segment of {name} the id {number}: ids are integers '
                        f'from 1 to {LARGEST_ID}, those that its PNG holds as R + 256 G + 65536 B.'
                    )
            if len({segment['id'] for segment in segments}) < len(segments):
                raise InputError(f'The panoptic file {self.path} gives two segments of {name} one id: correct it.')
            self._segments[image] = segments
            path = on_disk.find(name)
            if path is None:
                missing.append(os.path.join(self.folder, name))
            else:
                self._files[image] = path
        if not annotations:
            raise InputError(
                f'The panoptic file {self.path} has no segments: its list "annotations" is empty, fill it.'
            )
        if missing:
            raise InputError(
                f'{len(missing)} of the {len(annotations)} PNGs of the panoptic file {self.path} are missing, the '
                f'first is {missing[0]}: put them there or name their folder.'
            )

    def __contains__(self, image_id: Any) -> bool:
        return as_text(image_id) in self._segments

    def image_ids(self) -> list[str]:
        """Return the ids of the annotated images, as text, in the order of the file."""
        return [*self._segments]

    def png(self, image_id: Any) -> Path:
        """Return the path of an image's PNG."""
        return Path(self._files[as_text(image_id)])

    def read(self, image_id: Any) -> tuple[np.ndarray, list[dict]]:
        """Read an image's PNG.

        Returns:
            For each pixel the number of its segment, int64 (H, W), where 1 is the first and 0 is void; and the segments
            as the file has them.

        Raises:
            RunError: The PNG can't be read, is of another size than the file states, or holds an id that the file
                doesn't.
        """
        path, segments = self.png(image_id), self._segments[as_text(image_id)]
        ids = read_ids(path)
        image = self.images[as_text(image_id)]
        stated = image.get('height', len(ids)), image.get('width', ids.shape[1])
        if ids.shape != stated:
            raise RunError(
                f'The PNG {path} is {ids.shape[1]}x{ids.shape[0]} pixels but {self.path} states '
                f'{stated[1]}x{stated[0]}: correct one of them.'
            )
        numbers = number_segments(ids, segments)
        if numbers.min() < 0:
            raise RunError(
                f'The PNG {path} holds the segment {ids[numbers < 0][0]}, which {self.path} does not list for this '
                'image: correct one of them.'
            )
        return numbers, segments


def number_segments(ids: np.ndarray, segments: Sequence[dict]) -> np.ndarray:
    """Return for each pixel the number of its segment, int64 (H, W): 1 is the first, 0 is void, -1 none of them.

    Args:
        ids: Of segments (H, W), 0 for void.
        segments: With the ``id`` of each.
    """
    known = np.array([0, *(segment['id'] for segment in segments)], dtype=ids.dtype)
    order = np.argsort(known)
    places = np.searchsorted(known[order], ids).clip(max=len(known) - 1)
    numbers = order[places]
    return np.where(known[numbers] == ids, numbers, -1)


def _entries(content: dict, key: str, path: str) -> list[dict]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'The annotation file {path} is not in COCO\'s panoptic format: it has no list "{key}".')
    return entries


def _field(entry: Any, key: str, path: str) -> Any:
    try:
        return entry[key]
    except (KeyError, TypeError):
        raise InputError(
            f'The annotation file {path} is not in COCO\'s panoptic format: an entry has no "{key}".'
        ) from None


def _file_name(entry: dict, path: str) -> str:
    """Return the name of an entry's file, a path within a folder: others would name any file of the user's."""
    name = _field(entry, 'file_name', path)
    if not is_relative_path(name):
        raise InputError(
            f"The annotation file {path} is not in COCO's panoptic format: the file_name {name} is no path within a "
            'folder.'
        )
    return name


def _read_categories(content: dict, path: str) -> list[Category]:
    read = [
        Category(_field(entry, 'id', path), _field(entry, 'name', path), bool(_field(entry, 'isthing', path)))
        for entry in _entries(content, 'categories', path)
    ]
    ids = {category.id for category in read if isinstance(category.id, int)}
    if not read or len(ids) < len(read):
        raise InputError(f'The panoptic file {path} has no categories, or some without an integer of their own as id.')
    for kind, isthing in (('things', 1), ('stuff', 0)):
        if not any(category.isthing == isthing for category in read):
            raise InputError(
                f'The panoptic file {path} has no category of {kind} ("isthing": {isthing}), and a panoptic model '
                'learns things and stuff: add one.'
            )
    return sorted(read)


def read_categories(ann_file: str | Path) -> list[Category]:
    """Return a panoptic file's categories in the order of their ids.

    Raises:
        InputError: The file is missing, or has no things or no stuff in COCO's panoptic format.
    """
    return _read_categories(read_json(ann_file), str(ann_file))


def read_panoptic_classes(ann_file: str | Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a panoptic file's things and of its stuff, each in the order of their ids.

    For configs that take them from their data, as :func:`centermask.datasets.read_classes`.

    Raises:
        InputError: The file is missing, or has no things or no stuff in COCO's panoptic format.
    """
    categories = read_categories(ann_file)
    return (
        tuple(category.name for category in categories if category.isthing),
        tuple(category.name for category in categories if not category.isthing),
    )


def categories_of(things: Sequence[str], stuff: Sequence[str]) -> list[Category]:
    """Return categories in the order of a model's labels, with COCO's ids for COCO's classes, else counted from 1."""
    ids: Sequence[int] = range(1, len(things) + len(stuff) + 1)
    if (tuple(things), tuple(stuff)) == (tuple(THINGS), tuple(STUFF)):
        ids = THING_IDS + STUFF_IDS
    kinds = [True] * len(things) + [False] * len(stuff)
    return [Category(*each) for each in zip(ids, (*things, *stuff), kinds, strict=True)]


def read_ids(path: Path) -> np.ndarray:
    """Return the ids of segments that a PNG's colours are, R + 256 G + 65536 B, int32 (H, W).

    Raises:
        RunError: It can't be read, or isn't in colours of 8 bits.
    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise RunError(f'The PNG {path} could not be read, it is missing or damaged: put a whole one there.')
    if image.dtype != np.uint8 or image.ndim != 3:
        raise RunError(
            f'The PNG {path} is not in colours of 8 bits, which are the ids of segments in COCO: save it so.'
        )
    colours = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGBA)
    return (colours.view('<u4')[..., 0] & LARGEST_ID).astype(np.int32)


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Write ids of segments (H, W), up to 24 bits, as the colours of a PNG."""
    bgr = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype(np.uint8)
    write_png(path, bgr)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write bytes (H, W), or (H, W, 3) in BGR, as a PNG that appears when it is complete.

    Raises:
        RunError: It can't be written to its end.
    """
    data = cv2.imencode('.png', pixels)[1]
    atomic_write(path, lambda aside: aside.write_bytes(data.tobytes()))


def find_segments(panoptic: np.ndarray, categories: Sequence[Category]) -> tuple[np.ndarray, list[dict]]:
    """Number the segments of a panoptic map as COCO's format has them.

    Args:
        panoptic: MMDetection's map (H, W): label + 1000 · number of the instance; ``len(categories)`` is void.
        categories: By label, things first.

    Returns:
        For each pixel the id of its segment, int32 (H, W), from 1 on and 0 for void; and ``segments_info``, whose
        i-th entry has the id i + 1, in the order of the map's values.
    """
    areas = np.bincount(panoptic.reshape(-1))
    areas[len(categories) : len(categories) + 1] = 0
    values = np.flatnonzero(areas)
    ids_of = np.zeros(len(areas), np.int32)
    ids_of[values] = np.arange(1, len(values) + 1)
    segments = []
    for number, value in enumerate(values.tolist(), start=1):
        category = categories[value % INSTANCE_OFFSET]
        segments.append(
            {
                'id': number,
                'category_id': category.id,
                'isthing': int(category.isthing),
                'iscrowd': 0,
                'area': int(areas[value]),
            }
        )
    return ids_of[panoptic], segments


def write_panoptic(panoptic: np.ndarray, image: dict, categories: Sequence[Category], folder: Path) -> dict:
    """Write a panoptic map as a PNG named like its image and return its entry for :func:`write_panoptic_json`.

    Args:
        panoptic, categories: As for :func:`find_segments`.
        image: ``id`` and ``file_name`` of the image.
        folder: Where PNGs go.
    """
    ids, segments = find_segments(panoptic, categories)
    name = str(Path(image['file_name']).with_suffix('.png').as_posix())
    write_ids(folder / name, ids)
    return {'image_id': image['id'], 'file_name': name, 'segments_info': segments}


def write_panoptic_json(
    path: Path, images: Sequence[dict], annotations: Sequence[dict], categories: Sequence[Category]
) -> None:
    """Write the JSON file of a panoptic set or of predictions.

    Args:
        path: Of the file.
        images: ``id``, ``file_name``, ``width``, ``height`` of each image.
        annotations: What :func:`write_panoptic` returned.
        categories: All that there are.
    """
    listed = [{**category._asdict(), 'isthing': int(category.isthing)} for category in categories]
    content = {'images': [*images], 'annotations': [*annotations], 'categories': listed}
    atomic_write_text(path, json.dumps(content, ensure_ascii=False))
