"""The reader of annotation files in COCO format: it normalises every entry and yields findings about what is wrong.

Training and evaluation read through :class:`CocoAnnotations`; the data check prints the findings and writes what was
normalised. What an entry may look like is decided here and nowhere else.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum, IntEnum
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_utils
from mmdet.datasets.api_wrappers import COCO
from mmengine.logging import MMLogger

from centermask.datasets.rle import run_lengths
from centermask.utils.errors import InputError

# The fields that an entry of each list needs, and those that may be absent or null.
NEEDED = {
    'categories': ('id', 'name'),
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox'),
}
OPTIONAL = {'annotations': ('area', 'iscrowd')}
# Two objects that are equal in these are one.
IDENTITY = ('image_id', 'category_id', 'bbox', 'segmentation', 'iscrowd')
# Upper bounds for image sides, in pixels, and for all other numbers.
LONGEST_SIDE, LARGEST = 100_000, 2**53
# Pixels that an outline may lie outside of its image: some tools round that much.
SLACK = 1.0
# IoU of a box with that of its outline, below which one of them is wrong.
MIN_BOX_IOU = 0.8

Size = tuple[int, int]


class Severity(IntEnum):
    """What a finding does to a training."""

    NOTE = 0
    LOSES = 1
    FAILS = 2


class Kind(Enum):
    """A kind of finding: its severity, and its name in reports."""

    # The file
    FIELD = Severity.FAILS, 'entries without a needed field, or with one of the wrong type'
    ID = Severity.FAILS, 'entries with the id of another'
    NAME = Severity.FAILS, 'categories with the name of another'
    NOTHING = Severity.FAILS, 'files with nothing to train on'
    # Images
    MISSING = Severity.FAILS, 'images that are missing'
    UNREADABLE = Severity.FAILS, 'images that are damaged or not an image'
    REFUSED = Severity.FAILS, 'images that are refused (CMYK, several in one file, or more pixels than max_pixels)'
    SIZE = Severity.FAILS, 'images of another size than the file states'
    ROTATED = Severity.NOTE, 'images rotated by their EXIF orientation'
    DEEP = Severity.NOTE, 'images of 16 bits a channel (read as 8)'
    # Objects
    UNKNOWN_IMAGE = Severity.LOSES, 'objects of an image that the file does not list'
    UNKNOWN_CATEGORY = Severity.LOSES, 'objects of a category that the file does not list'
    NO_OUTLINE = Severity.LOSES, 'objects without segmentation'
    RLE_DAMAGED = Severity.LOSES, 'objects whose RLE is damaged'
    RLE_EMPTY = Severity.LOSES, 'objects whose RLE is empty'
    RLE_SIZE = Severity.LOSES, 'objects whose RLE is not of the size of its image'
    NO_NUMBERS = Severity.LOSES, 'objects whose polygon is not a list of numbers'
    FAR_OUTSIDE = Severity.LOSES, 'objects whose polygon lies far outside its image'
    FEW_POINTS = Severity.LOSES, 'objects whose polygons have under three points'
    SOME_FEW_POINTS = Severity.LOSES, 'objects of whose polygons some have under three points'
    NO_AREA = Severity.LOSES, 'objects whose outline covers no pixel'
    BOX_UNUSABLE = Severity.LOSES, 'objects whose box is under a pixel or outside the image'
    NOT_LEARNED = (
        Severity.LOSES,
        'objects that no FCOS location learns (too small, too thin, or covered by smaller ones)',
    )
    BOX = Severity.NOTE, 'objects whose box is not that of their outline'
    OUTSIDE = Severity.NOTE, 'objects whose outline leaves the image'
    DUPLICATE = Severity.NOTE, 'objects that are in the file twice'

    def __init__(self, severity: Severity, words: str) -> None:
        self.severity = severity
        self.words = words


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: What it is.
        where: The entry of the file, the object or the image.
        what: More about it, '' where kind and place say all.
        change: What normalising did about it, '' if nothing.
    """

    kind: Kind
    where: str
    what: str = ''
    change: str = ''


class CocoReader:
    """Normalises the content of a file in COCO format.

    A missing ``area`` (that of the outline, in pixels) or ``iscrowd`` (0) is filled in, polygons become float64 arrays,
    and entries that can't be used are left out.

    Args:
        content: The object in the file; it isn't changed.
        path: Path of the file, for messages.
        with_masks: False keeps objects whose outline can't be used.
        repair: True also corrects what training refuses (fields, ids, names of categories) or tolerates: boxes that
            aren't those of the outlines, and duplicates.
        sizes: Actual width and height of images by file name, which replace those in the file.

    Attributes:
        findings: What is wrong, in the order of the file.
        content: The normalised content.

    Raises:
        InputError: One of the three lists is missing, or its ids are partly numbers and partly text.
    """

    def __init__(
        self,
        content: dict,
        path: str | Path,
        with_masks: bool = True,
        repair: bool = False,
        sizes: Mapping[str, Size] | None = None,
    ) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self._with_masks, self._repair, self._sizes = with_masks, repair, sizes or {}
        # Category ids by those in the file: two categories of one name become one.
        self._category_ids: dict[Any, Any] = {}
        categories = list(self._read_categories(content))
        if not categories:
            self._add(Kind.NOTHING, 'the file', 'lists no categories')
        images = {entry['id']: self._with_size(entry) for _, entry in self._entries(content, 'images')}
        annotations = list(self._read_objects(content, images))
        self.content = {**content, 'categories': categories, 'images': [*images.values()], 'annotations': annotations}

    def raise_failure(self) -> None:
        """Raise an :class:`InputError` for the first finding that training refuses."""
        for finding in self.findings:
            if finding.kind.severity == Severity.FAILS:
                raise InputError(
                    f'The annotation file {self.path} is not in COCO format: {finding.where} {finding.what}.'
                )

    def _add(self, kind: Kind, where: str, what: str = '', change: str = '') -> None:
        self.findings.append(Finding(kind, where, what, change))

    def _entries(self, content: dict, key: str) -> Iterator[tuple[str, dict]]:
        """Yield the place and the entry for those that have valid fields and an id of their own."""
        entries = content.get(key)
        if not isinstance(entries, list):
            raise InputError(f'The annotation file {self.path} is not in COCO format: it has no list "{key}".')
        ids = [entry['id'] for entry in entries if isinstance(entry, dict) and _is_valid('id', entry.get('id'))]
        if key != 'annotations' and len({isinstance(each, str) for each in ids}) > 1:  # COCO's evaluation sorts them
            raise InputError(
                f'The annotation file {self.path} has ids of "{key}" that are numbers and others that are text: '
                'make all of them numbers.'
            )
        unused = max((math.ceil(each) for each in ids if not isinstance(each, str)), default=0) + 1
        seen = set()
        for i, entry in enumerate(entries):
            where = f'entry {i} of "{key}"'
            wrong = _invalid_field(entry, key)
            if wrong:
                entry = self._completed(entry, key, unused) if self._repair and isinstance(entry, dict) else None
                hint = ', a path within the folder of images' if wrong == 'file_name' else ''
                self._add(Kind.FIELD, where, f'has no valid "{wrong}"{hint}', 'completed' if entry else 'left out')
            if entry is not None and entry['id'] in seen:
                self._add(Kind.ID, where, f'has the id {entry["id"]}, which another entry has too', 'corrected')
                entry = {**entry, 'id': unused} if key == 'annotations' else None
            if entry is not None:
                unused += entry['id'] == unused
                seen.add(entry['id'])
                yield where, entry

    def _completed(self, entry: dict, key: str, unused: int) -> dict | None:
        """Return an entry whose invalid fields are replaced by what is known otherwise, None if more is missing."""
        if key == 'images':
            entry = self._with_size(entry)
        elif key == 'annotations':
            known: dict[str, Any] = {'id': unused, 'bbox': [0, 0, 0, 0], 'area': None, 'iscrowd': None}
            wrong = [field for field in known if not _is_valid(field, entry.get(field))]
            entry = {**entry, **{field: known[field] for field in wrong}}
        return None if _invalid_field(entry, key) else entry

    def _with_size(self, image: dict) -> dict:
        size = self._sizes.get(str(image.get('file_name')))
        return {**image, 'width': size[0], 'height': size[1]} if size else image

    def _read_categories(self, content: dict) -> Iterator[dict]:
        ids: dict[str, Any] = {}
        for where, entry in self._entries(content, 'categories'):
            name = entry['name']
            if name in ids:
                self._add(Kind.NAME, where, f'has the name "{name}", which another category has too', 'merged')
            else:
                yield entry
            self._category_ids[entry['id']] = ids.setdefault(name, entry['id'])

    def _read_objects(self, content: dict, images: dict[Any, dict]) -> Iterator[dict]:
        seen: set[str] = set()
        for _, entry in self._entries(content, 'annotations'):
            image, where = images.get(entry['image_id']), f'object {entry["id"]}'
            if image is None:
                self._add(Kind.UNKNOWN_IMAGE, where, change='left out')
                continue
            where += f' on {image["file_name"]}'
            if entry['category_id'] not in self._category_ids:
                self._add(Kind.UNKNOWN_CATEGORY, where, change='left out')
                continue
            if self._repair:
                fields = json.dumps([entry.get(field) for field in IDENTITY])
                if fields in seen:
                    self._add(Kind.DUPLICATE, where, change='left out')
                    continue
                seen.add(fields)
            entry = {**entry, 'category_id': self._category_ids[entry['category_id']]}
            normalised = self._normalise(entry, image, where)
            if normalised is None:
                continue
            if self._repair and isinstance(normalised['segmentation'], dict):
                normalised['segmentation'] = entry['segmentation']  # in the form that it had
            yield normalised

    def _normalise(self, entry: dict, image: dict, where: str) -> dict | None:
        """Return an object with everything filled in, None if it can't be used."""
        height, width = int(image['height']), int(image['width'])
        crowd = int(entry.get('iscrowd') or 0)
        segmentation, kind = read_segmentation(entry.get('segmentation'), height, width)
        if crowd and not segmentation:
            # A crowd is a region to ignore, and its box is one.
            x, y, w, h = entry['bbox']
            segmentation, kind = [np.array([x, y, x + w, y, x + w, y + h, x, y + h], dtype=np.float64)], None
        if kind and segmentation:
            self._add(kind, where, change='these polygons left out')
        elif kind and self._with_masks:
            self._add(kind, where, change='left out')
            return None
        entry = {**entry, 'iscrowd': crowd, 'segmentation': segmentation}
        if not 0 < (entry.get('area') or 0) <= LARGEST:
            entry['area'] = mask_area(entry, height, width)
        if self._repair and not crowd:
            return self._repaired(entry, image, where)
        if not box_has_area(entry, image):  # MMDetection leaves it out of training, but not of the evaluation
            self._add(Kind.BOX_UNUSABLE, where, change='left out')
            return None if self._repair else entry
        return entry

    def _repaired(self, entry: dict, image: dict, where: str) -> dict | None:
        """Return an object whose box is that of its outline, None if no such box can be used."""
        width, height = int(image['width']), int(image['height'])
        if not mask_area(entry, height, width):
            self._add(Kind.NO_AREA, where, change='left out')
            return None
        corners = outline_corners(entry['segmentation'])
        clipped = corners.clip(0, [width, height, width, height])
        if np.abs(clipped - corners).max() > SLACK:
            self._add(Kind.OUTSIDE, where)
        usable = box_has_area(entry, image)
        boxes = np.array([[*box[:2], *(box[2:] - box[:2])] for box in (corners, clipped)])
        if usable and mask_utils.iou(np.array([entry['bbox']], dtype=np.float64), boxes, [0, 0]).max() >= MIN_BOX_IOU:
            return entry
        entry = {**entry, 'bbox': boxes[1].round(2).tolist()}
        correctable = box_has_area(entry, image)
        kind = Kind.BOX if usable else Kind.BOX_UNUSABLE
        self._add(kind, where, change='box set to that of the outline' if correctable else 'left out')
        return entry if correctable else None


class CocoAnnotations(COCO):
    """MMDetection's index of a COCO file, over content that :class:`CocoReader` has normalised.

    Args:
        annotation_file: Path of the JSON file.
        annotated: False accepts a file without ``annotations``, as COCO's test-dev has.
        with_masks: False keeps objects whose outline can't be used.
        warn: Whether to log one line that counts the objects left out.

    Raises:
        InputError: The file is missing, isn't JSON or isn't in COCO format, or its ids aren't unique.
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
            MMLogger.get_current_instance().warning(f'{annotation_file}: can not use {summarise(reader.findings)}.')
        self.dataset = reader.content
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
                'make the classes of the config (metainfo) those of the file.'
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
        content = json.loads(Path(path).read_text(encoding='utf-8'))
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
    if not isinstance(content, dict):
        raise InputError(
            f'The annotation file {path} is not in COCO format: it must be an object with the lists {shorten(NEEDED)}.'
        )
    return content


def _invalid_field(entry: Any, key: str) -> str | None:
    """Return the first field of an entry of the list ``key`` that is missing or has a wrong value."""
    given = entry if isinstance(entry, dict) else {}
    fields = (*NEEDED[key], *(field for field in OPTIONAL.get(key, ()) if given.get(field) is not None))
    return next((field for field in fields if not _is_valid(field, given.get(field))), None)


def _is_valid(field: str, value: Any) -> bool:
    if field in ('width', 'height'):
        return is_number(value, LONGEST_SIDE) and value >= 1
    if field == 'iscrowd':
        return value in (0, 1) and isinstance(value, int | float)
    if field == 'area':
        return isinstance(value, float) or is_number(value, LARGEST)
    if field == 'bbox':
        return isinstance(value, list) and len(value) == 4 and all(is_number(v, LARGEST) for v in value)
    if field == 'name':
        return isinstance(value, str) and bool(value)
    if field == 'file_name':  # an untrusted file may name any file of the user's
        return isinstance(value, str) and _is_inside(PurePath(value))
    return isinstance(value, str) or is_number(value, LARGEST)


def _is_inside(path: PurePath) -> bool:
    return bool(path.name) and not path.is_absolute() and '..' not in path.parts


def is_number(value: Any, largest: float) -> bool:
    """Return whether this is a number from ``-largest`` to ``largest``, which NaN isn't."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def read_segmentation(segmentation: Any, height: int, width: int) -> tuple[list[np.ndarray] | dict, Kind | None]:
    """Return the part of a segmentation that can be used (polygons or compressed RLE), and what is wrong with it."""
    if not segmentation:
        return [], Kind.NO_OUTLINE
    if isinstance(segmentation, dict):
        try:
            lengths = run_lengths(segmentation)
        except ValueError:
            return [], Kind.RLE_DAMAGED
        if not any(lengths[1::2]):
            return [], Kind.RLE_EMPTY
        if list(segmentation['size']) != [height, width]:
            return [], Kind.RLE_SIZE
        return mask_utils.frPyObjects({'size': [height, width], 'counts': lengths}, height, width), None
    try:
        polygons = [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
    except (OverflowError, TypeError, ValueError):
        return [], Kind.NO_NUMBERS
    # pycocotools allocates memory for every pixel that an outline passes, inside the image or not.
    if any(p.size and np.abs(p).max() > 10 * max(height, width) + 1000 for p in polygons):
        return [], Kind.FAR_OUTSIDE
    usable = [p for p in polygons if p.ndim == 1 and len(p) >= 6 and len(p) % 2 == 0 and np.isfinite(p).all()]
    if len(usable) == len(polygons):
        return usable, None
    return usable, Kind.SOME_FEW_POINTS if usable else Kind.FEW_POINTS


def mask_area(entry: dict, height: int, width: int) -> float:
    """Return the area of a normalised object's outline in pixels, of its box where it has none."""
    segmentation = entry['segmentation']
    if isinstance(segmentation, dict):
        return float(mask_utils.area(segmentation))
    if segmentation:
        return float(mask_utils.area(mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))))
    return entry['bbox'][2] * entry['bbox'][3]


def outline_corners(segmentation: list[np.ndarray] | dict) -> np.ndarray:
    """Return x1, y1, x2, y2 of the box around an outline."""
    if isinstance(segmentation, dict):
        x, y, w, h = mask_utils.toBbox(segmentation)
        return np.array([x, y, x + w, y + h])
    points = np.concatenate(segmentation).reshape(-1, 2)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def box_has_area(entry: dict, image: dict) -> bool:
    """Return whether MMDetection trains on a box: at least a pixel wide and high, and not outside the image."""
    x, y, width, height = entry['bbox']
    inside = min(x + width, image['width']) > max(x, 0) and min(y + height, image['height']) > max(y, 0)
    return inside and width >= 1 and height >= 1 and entry['area'] > 0


def summarise(findings: Iterable[Finding], examples: int = 3) -> str:
    """Return the findings as a phrase: each kind with its number and the first few examples."""
    grouped: dict[Kind, list[str]] = defaultdict(list)
    for finding in findings:
        grouped[finding.kind].append(finding.where)
    return '; '.join(f'{len(v)} {kind.words} ({shorten(v, examples)})' for kind, v in grouped.items())


def shorten(values: Iterable[Any], limit: int = 10) -> str:
    """Return the first few values as a list in text, and how many more there are."""
    values = [str(value) for value in values]
    more = f' and {len(values) - limit} more' if len(values) > limit else ''
    return ', '.join(values[:limit]) + more
