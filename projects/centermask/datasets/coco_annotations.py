"""The reader of annotation files in COCO format: it normalises every entry and yields findings about what is wrong.

Training and evaluation read through :class:`CocoAnnotations`; the data check prints the findings and writes what was
normalised. What an entry may look like is decided here and nowhere else.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, IntEnum
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_utils
from mmdet.datasets.api_wrappers import COCO
from mmengine.logging import MMLogger

from centermask.datasets.rle import run_lengths
from centermask.utils.errors import InputError

# Upper bounds for image sides, in pixels, and for all other numbers.
LONGEST_SIDE, LARGEST = 100_000, 2**53
# IoU of a box with that of its outline, below which one of them is wrong.
MIN_BOX_IOU = 0.8


class Severity(IntEnum):
    """Severity of a finding for a training."""

    NOTE = 0
    LOSES = 1
    FAILS = 2


class Kind(Enum):
    """A kind of finding: its severity, and its name in reports."""

    FIELD = Severity.FAILS, 'entries without a needed field, or with one of the wrong type'
    ID = Severity.FAILS, 'entries with the id or name of another'
    NOTHING = Severity.FAILS, 'files with nothing to train on'
    IMAGE = Severity.FAILS, 'images that are missing or can not be used'
    SIZE = Severity.FAILS, 'images of another size than the file states'
    RANGE = Severity.FAILS, 'ranges of values that are not those of the file format'
    UNKNOWN = Severity.LOSES, 'objects of an image or category that the file does not list'
    NO_OUTLINE = Severity.LOSES, 'objects without segmentation'
    RLE = Severity.LOSES, 'objects whose RLE can not be used'
    POLYGON = Severity.LOSES, 'objects with a polygon that can not be used'
    BOX_UNUSABLE = Severity.LOSES, 'objects whose box is under a pixel or outside the image'
    NOT_LEARNED = (
        Severity.LOSES,
        'objects that no FCOS location learns (too small, too thin, or covered by smaller ones)',
    )
    DETECTIONS = Severity.LOSES, 'limits of detections an image, which train.py --data raises'
    ROIS = Severity.NOTE, 'limits of training RoIs an image, so that a random part of the masks is learned at a time'
    BOX = Severity.NOTE, 'objects whose box is not that of their outline'

    def __init__(self, severity: Severity, words: str) -> None:
        self.severity = severity
        self.words = words


class Finding(NamedTuple):
    """One thing that is wrong: its kind, the entry, object or image concerned, and more about it where known."""

    kind: Kind
    where: str
    what: str = ''

    def __str__(self) -> str:
        return f'{self.where} {self.what}'.strip()


def is_number(value: Any, largest: float = LARGEST) -> bool:
    """Return whether this is a number from ``-largest`` to ``largest``, which NaN isn't."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or is_number(value)


def _is_length(value: Any) -> bool:
    return is_number(value, LONGEST_SIDE) and value >= 1


def _is_relative_path(value: Any) -> bool:
    """Return whether this is a path within a folder: an untrusted file may name any other file of the user's."""
    path = PurePath(value if isinstance(value, str) else '')
    return bool(path.name) and not path.is_absolute() and '..' not in path.parts


def _is_box(value: Any) -> bool:
    return not value or (isinstance(value, list) and len(value) == 4 and all(map(is_number, value)))


# For each list, its fields and what their values must be.
FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    'categories': {'id': _is_id, 'name': lambda value: isinstance(value, str) and value != ''},
    'images': {'id': _is_id, 'file_name': _is_relative_path, 'width': _is_length, 'height': _is_length},
    'annotations': {
        'image_id': _is_id,
        'category_id': _is_id,
        'bbox': _is_box,
        'area': lambda value: value is None or isinstance(value, float) or is_number(value),
        'iscrowd': lambda value: value is None or (isinstance(value, int | float) and value in (0, 1)),
    },
}
UNIQUE = {'categories': ('id', 'name'), 'images': ('id',), 'annotations': ()}


class CocoReader:
    """Normalises the content of a file in COCO format.

    A missing ``bbox`` (that of the outline), ``area`` (of the outline, in pixels) or ``iscrowd`` (0) is filled in,
    polygons become float64 arrays, RLE is compressed, and entries that can't be used are left out.

    Args:
        content: The object in the file; it isn't changed.
        path: Path of the file, for messages.
        with_masks: False keeps objects whose outline can't be used.
        compare_boxes: Whether to look for boxes that aren't those of their outlines too, which takes longer.

    Attributes:
        findings: What is wrong, in the order of the file.
        content: The normalised content.

    Raises:
        InputError: One of the three lists is missing, or its ids are partly numbers and partly text.
    """

    def __init__(self, content: dict, path: str | Path, with_masks: bool = True, compare_boxes: bool = False) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self._with_masks, self._compare_boxes = with_masks, compare_boxes
        categories = {entry['id']: entry for _, entry in self._entries(content, 'categories')}
        if not categories:
            self._add(Kind.NOTHING, 'the file', 'lists no categories')
        images = {entry['id']: entry for _, entry in self._entries(content, 'images')}
        annotations = []
        for where, entry in self._entries(content, 'annotations'):
            if 'id' in entry:
                where = f'object {entry["id"]}'
            image = images.get(entry['image_id'])
            if image is None or entry['category_id'] not in categories:
                self._add(Kind.UNKNOWN, where)
            elif normalised := self._normalise(entry, image, f'{where} on {image["file_name"]}'):
                annotations.append(normalised)
        self.content = {
            **content,
            'categories': [*categories.values()],
            'images': [*images.values()],
            'annotations': annotations,
        }

    def raise_failure(self) -> None:
        """Raise an :class:`InputError` for the first finding that training refuses."""
        for finding in self.findings:
            if finding.kind.severity == Severity.FAILS:
                raise InputError(f'The annotation file {self.path} is not in COCO format: {finding}.')

    def _add(self, kind: Kind, where: str, what: str = '') -> None:
        self.findings.append(Finding(kind, where, what))

    def _entries(self, content: dict, key: str) -> Iterator[tuple[str, dict]]:
        """Yield the position and the entry for those that have valid fields and an id of their own."""
        entries = content.get(key)
        if not isinstance(entries, list):
            raise InputError(f'The annotation file {self.path} is not in COCO format: it has no list "{key}".')
        seen: dict[str, set] = {field: set() for field in UNIQUE[key]}
        for i, entry in enumerate(entries):
            where = f'entry {i} of "{key}"'
            given = entry if isinstance(entry, dict) else {}
            wrong = next((field for field, valid in FIELDS[key].items() if not valid(given.get(field))), None)
            twice = None if wrong else next((field for field in seen if entry[field] in seen[field]), None)
            if wrong:
                hint = ', a path within the folder of images' if wrong == 'file_name' else ''
                self._add(Kind.FIELD, where, f'has no valid "{wrong}"{hint}')
            elif twice:
                self._add(Kind.ID, where, f'has the {twice} {entry[twice]}, which another entry has too')
            else:
                for field in seen:
                    seen[field].add(entry[field])
                yield where, entry
        if len({isinstance(each, str) for each in seen.get('id', ())}) > 1:  # COCO's evaluation sorts them
            raise InputError(
                f'The annotation file {self.path} has ids of "{key}" that are numbers and others that are text: '
                'use numbers for all of them.'
            )

    def _normalise(self, entry: dict, image: dict, where: str) -> dict | None:
        """Return an object with everything filled in, None if it can't be used."""
        height, width = int(image['height']), int(image['width'])
        segmentation, kind, what = read_segmentation(entry.get('segmentation'), height, width)
        entry = {**entry, 'iscrowd': int(entry.get('iscrowd') or 0)}
        has_box = any(entry.get('bbox') or ())
        if entry['iscrowd'] and not segmentation and has_box:  # a region to ignore, as its box is
            x, y, w, h = entry['bbox']
            segmentation, kind = [np.array([x, y, x + w, y, x + w, y + h, x, y + h], dtype=np.float64)], None
        if kind and (self._with_masks or not has_box):
            self._add(kind, where, what)
            if not segmentation:
                return None
        entry['segmentation'] = segmentation
        if not has_box:
            entry['bbox'] = outline_box(segmentation).tolist()
        elif self._compare_boxes and not entry['iscrowd']:
            boxes = np.array([entry['bbox'], outline_box(segmentation)], dtype=np.float64)
            if mask_utils.iou(boxes[:1], boxes[1:], [0]).item() < MIN_BOX_IOU:
                self._add(Kind.BOX, where)
        if not 0 < (entry.get('area') or 0) <= LARGEST:
            entry['area'] = mask_area(entry, height, width)
        if not box_has_area(entry, image):  # MMDetection leaves it out of training, but not of the evaluation
            self._add(Kind.BOX_UNUSABLE, where)
        return entry


class CocoAnnotations(COCO):
    """MMDetection's index of a COCO file, over content that :class:`CocoReader` has normalised.

    Objects are numbered from 1: COCO's evaluation stores the matched object's id in an array of numbers, where 0 means
    no match.

    Args:
        annotation_file: Path of the JSON file.
        annotated: False accepts a file without ``annotations``, as COCO's test-dev has.
        with_masks: False keeps objects whose outline can't be used.
        warn: Whether to log one line that counts the objects left out.

    Raises:
        InputError: The file is missing, isn't JSON or isn't in COCO format.
    """

    def __init__(
        self, annotation_file: str, annotated: bool = True, with_masks: bool = True, warn: bool = False
    ) -> None:
        super().__init__()
        self.path = annotation_file
        content = read_json(annotation_file)
        if not annotated:
            content.setdefault('annotations', [])
        reader = CocoReader(content, annotation_file, with_masks)
        reader.raise_failure()
        if warn and reader.findings:
            found = '; '.join(summarise(reader.findings))
            MMLogger.get_current_instance().warning(f'{annotation_file}: can not use {found}.')
        self.dataset = reader.content
        for number, annotation in enumerate(self.dataset['annotations'], start=1):
            annotation['id'] = number
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def get_cat_ids(
        self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (), cat_ids: Sequence[int] = ()
    ) -> list[int]:
        """Return ids of categories, for ``cat_names`` in the order of the names.

        pycocotools returns them in the order of the file, so that labels would mean other classes than in the config.

        Raises:
            InputError: The file has no category of such a name.
        """
        if not cat_names:
            return super().get_cat_ids(cat_names, sup_names, cat_ids)
        ids = {category['name']: category['id'] for category in self.dataset['categories']}
        absent = [name for name in cat_names if name not in ids]
        if absent:
            raise InputError(
                f'The annotation file {self.path} has no category {shorten(absent)}, only {shorten(ids)}: '
                'set the classes of the config (metainfo) to those of the file.'
            )
        return [ids[name] for name in cat_names]


def read_classes(ann_file: str) -> tuple[str, ...]:
    """Return the names of a COCO file's categories in the order of their ids.

    For configs that take the classes from their data: ``from centermask.datasets import read_classes``, after the line
    with ``_base_`` (MMEngine takes a config that imports first for one of its other style).

    Raises:
        InputError: The file is missing, isn't JSON, or has no valid categories.
    """
    content = read_json(ann_file)
    reader = CocoReader({'images': [], 'annotations': [], 'categories': content.get('categories')}, ann_file)
    reader.raise_failure()
    return classes_of(reader.content)


def classes_of(content: dict) -> tuple[str, ...]:
    """Return the names of the categories of a file's content in the order of their ids."""
    return tuple(category['name'] for category in sorted(content['categories'], key=lambda category: category['id']))


def read_json(path: str | Path) -> dict:
    """Return the object that a JSON file holds.

    Raises:
        InputError: The file is missing, can't be read, or isn't JSON with an object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8-sig'))
    except FileNotFoundError:
        raise InputError(f'The annotation file {path} does not exist: correct ann_file and data_root.') from None
    except OSError as error:
        raise InputError(f'The annotation file {path} could not be read: {error.strerror}.') from None
    except (RecursionError, ValueError) as error:  # the latter of JSON, of UTF-8, or of a number of 5000 digits
        raise InputError(f'The annotation file {path} is not valid JSON: {error}.') from None
    if not isinstance(content, dict):
        raise InputError(
            f'The annotation file {path} is not in COCO format: it must be an object with the lists {shorten(FIELDS)}.'
        )
    return content


def read_segmentation(segmentation: Any, height: int, width: int) -> tuple[list[np.ndarray] | dict, Kind | None, str]:
    """Return the part of a segmentation that can be used (polygons or compressed RLE), and what is wrong with it."""
    if not segmentation:
        return [], Kind.NO_OUTLINE, ''
    if isinstance(segmentation, dict):
        try:
            lengths = run_lengths(segmentation)
        except ValueError as error:
            return [], Kind.RLE, f'({error})'
        if not any(lengths[1::2]):
            return [], Kind.RLE, '(it is empty)'
        if list(segmentation['size']) != [height, width]:
            return [], Kind.RLE, '(it is not of the size of the image)'
        return mask_utils.frPyObjects({'size': [height, width], 'counts': lengths}, height, width), None, ''
    try:
        polygons = [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
    except (OverflowError, TypeError, ValueError):
        return [], Kind.POLYGON, '(not a list of lists of numbers)'
    # pycocotools allocates memory for every pixel that an outline passes, inside the image or not.
    if any(p.size and np.abs(p).max() > 10 * max(height, width) + 1000 for p in polygons):
        return [], Kind.POLYGON, '(far outside its image)'
    usable = [p for p in polygons if p.ndim == 1 and len(p) >= 6 and len(p) % 2 == 0 and np.isfinite(p).all()]
    if len(usable) < len(polygons):
        return usable, Kind.POLYGON, '(under three points, x without y, or not a number)'
    return usable, None, ''


def mask_area(entry: dict, height: int, width: int) -> float:
    """Return the area of a normalised object's outline in pixels, of its box where it has none."""
    segmentation = entry['segmentation']
    if isinstance(segmentation, dict):
        return float(mask_utils.area(segmentation))
    if segmentation:
        return float(mask_utils.area(mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))))
    return entry['bbox'][2] * entry['bbox'][3]


def outline_box(segmentation: list[np.ndarray] | dict) -> np.ndarray:
    """Return x, y, width and height of the box around an outline."""
    if isinstance(segmentation, dict):
        return mask_utils.toBbox(segmentation)
    points = np.concatenate(segmentation).reshape(-1, 2)
    return np.concatenate([points.min(axis=0), np.ptp(points, axis=0)])


def box_has_area(entry: dict, image: dict) -> bool:
    """Return whether MMDetection trains on a box: at least a pixel wide and high, and not outside the image."""
    x, y, width, height = entry['bbox']
    inside = min(x + width, image['width']) > max(x, 0) and min(y + height, image['height']) > max(y, 0)
    return inside and width >= 1 and height >= 1 and entry['area'] > 0


def summarise(findings: Iterable[Finding], examples: int = 3) -> list[str]:
    """Return a phrase for each kind of finding, the most frequent first: its number and the first few examples."""
    grouped: dict[Kind, list[Finding]] = defaultdict(list)
    for finding in findings:
        grouped[finding.kind].append(finding)
    ranked = sorted(grouped.items(), key=lambda item: -len(item[1]))
    return [f'{len(found)} {kind.words}: {shorten(found, examples)}' for kind, found in ranked]


def shorten(values: Iterable[Any], limit: int = 10) -> str:
    """Return the first few values as a list in text, and how many more there are."""
    values = [str(value) for value in values]
    more = f' and {len(values) - limit} more' if len(values) > limit else ''
    return ', '.join(values[:limit]) + more
