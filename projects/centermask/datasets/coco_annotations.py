"""The reader of annotation files in COCO format: it normalises every entry and yields findings about what is wrong.

Training and evaluation read through :class:`CocoAnnotations`; the data check prints the findings and writes what was
normalised. What an entry may look like is decided here and nowhere else.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, IntEnum
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_utils
from mmdet.datasets.api_wrappers import COCO
from mmengine.logging import MMLogger

from centermask.datasets.box_form import BoxForm, find_box_form, fit
from centermask.structures.rle_masks import run_lengths
from centermask.utils.errors import InputError, RunError

# Upper bounds for image sides, in pixels, for areas (those that COCO's evaluation counts), and for all other numbers.
LONGEST_SIDE, LARGEST_AREA, LARGEST = 100_000, 1e10, 2**53
# Number of objects whose boxes are compared with their outlines, to find out in which form they are.
COMPARED = 2000


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
    FORM = Severity.FAILS, "way of writing numbers that is not COCO's, which tools/check_dataset.py --fix mends"
    SIZE = Severity.FAILS, 'images of another size than the file states'
    RANGE = Severity.FAILS, 'ranges of values that are not those of the file format'
    UNKNOWN = Severity.LOSES, 'objects of an image or category that the file does not list'
    NOWHERE = Severity.LOSES, 'objects with neither a box nor an outline (segmentation)'
    NO_OUTLINE = Severity.LOSES, 'objects with a box but no outline (only their boxes are learned and evaluated)'
    RLE = Severity.LOSES, 'objects whose RLE can not be used'
    POLYGON = Severity.LOSES, 'objects with a polygon that can not be used'
    BOX_UNUSABLE = Severity.LOSES, 'objects whose box is under a pixel or outside the image'
    NOT_LEARNED = (
        Severity.LOSES,
        'objects that no FCOS location learns (too small, too thin, or covered by smaller ones)',
    )
    DETECTIONS = Severity.LOSES, 'limit of detections an image that is too low, which train.py --data raises'
    ROIS = (
        Severity.NOTE,
        'low limit of training RoIs an image: a random part of the masks is learned at a time',
    )
    BOX = Severity.NOTE, 'objects whose box is not that of their outline'
    OUTSIDE = Severity.NOTE, 'objects of which a part lies outside the image'
    AREA = Severity.NOTE, 'objects whose area is impossible (it is computed anew)'
    IGNORED = Severity.NOTE, 'objects with "ignore", which are regions to ignore like crowds'

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
    return (isinstance(value, str | int) and not isinstance(value, bool)) or is_number(value)


def as_text(value: Any) -> str:
    """Return an id as text: files mix 1, 1.0 and "1", and an id of 19 digits is no float."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _is_length(value: Any) -> bool:
    return is_number(value, LONGEST_SIDE) and value >= 1


def is_relative_path(value: Any) -> bool:
    """Return whether this is a path within a folder: an untrusted file may name any other file of the user's."""
    path = PureWindowsPath(value if isinstance(value, str) else '')  # which takes both kinds of slashes
    return bool(path.name) and not path.anchor and '..' not in path.parts


def _is_box(value: Any) -> bool:
    return not value or (isinstance(value, list) and len(value) == 4 and all(map(is_number, value)))


def _is_flag(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value in (0, 1))


# For each list, its fields and what their values must be.
FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    'categories': {'id': _is_id, 'name': lambda value: isinstance(value, str) and value != ''},
    'images': {'id': _is_id, 'file_name': is_relative_path, 'width': _is_length, 'height': _is_length},
    'annotations': {
        'image_id': _is_id,
        'category_id': _is_id,
        'bbox': _is_box,
        'area': lambda value: value is None or isinstance(value, float) or is_number(value),
        'iscrowd': _is_flag,
        'ignore': _is_flag,
    },
}
UNIQUE = {'categories': ('id', 'name'), 'images': ('id',), 'annotations': ()}


class CocoReader:
    """Normalises the content of a file in COCO format.

    A missing ``bbox`` (that of the outline), ``area`` (of the outline, in pixels) or ``iscrowd`` (0) is filled in,
    polygons become float64 arrays, RLE is compressed, ``ignore`` becomes ``iscrowd``, and ids are those of the lists of
    images and categories. An object with a box stays without an outline, its ``segmentation`` is then empty. Entries
    that can't be used are left out.

    Args:
        content: The object in the file; it isn't changed.
        path: Path of the file, for messages.
        compare_boxes: Whether to look for boxes that aren't those of their outlines too, which takes longer.

    Attributes:
        findings: What is wrong, in the order of the file.
        content: The normalised content.

    Raises:
        InputError: One of the three lists is missing.
    """

    def __init__(self, content: dict, path: str | Path, compare_boxes: bool = False) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self._compare_boxes = compare_boxes
        content = {**content, 'categories': _without_namesake(content)}
        categories = {as_text(entry['id']): entry for _, entry in self._entries(content, 'categories')}
        if not categories:
            self._add(Kind.NOTHING, 'the file', 'lists no categories')
        images = {as_text(entry['id']): {**entry} for _, entry in self._entries(content, 'images')}
        entries = [*self._entries(content, 'annotations')]
        self._relative_outlines, self._box_form = self._find_form([entry for _, entry in entries], images)
        annotations = []
        for where, entry in entries:
            if 'id' in entry:
                where = f'object {entry["id"]}'
            image = images.get(as_text(entry['image_id']))
            category = categories.get(as_text(entry['category_id']))
            if image is None or category is None:
                self._add(Kind.UNKNOWN, where)
                continue
            entry = {**entry, 'image_id': image['id'], 'category_id': category['id']}
            if normalised := self._normalise(entry, image, f'{where} on {image["file_name"]}'):
                annotations.append(normalised)
        self.content = {
            **content,
            'categories': [*categories.values()],
            'images': [*images.values()],
            'annotations': annotations,
        }

    def raise_failure(self) -> None:
        """Raise an error for the first finding that training refuses.

        Raises:
            InputError: An entry or a list can't be used.
            RunError: Boxes or outlines are in another form.
        """
        for finding in self.findings:
            if finding.kind is Kind.FORM:
                raise RunError(f'{self.path}: {finding}: tools/check_dataset.py with --fix OUT.json mends that.')
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
            twice = None if wrong else next((f for f in seen if as_text(entry[f]) in seen[f]), None)
            if wrong:
                hint = ', a path within the folder of images' if wrong == 'file_name' else ''
                self._add(Kind.FIELD, where, f'has no valid "{wrong}"{hint}')
            elif twice:
                self._add(Kind.ID, where, f'has the {twice} {entry[twice]}, which another entry has too')
            else:
                for field in seen:
                    seen[field].add(as_text(entry[field]))
                yield where, entry

    def _find_form(self, entries: list[dict], images: dict[str, dict]) -> tuple[bool, BoxForm | None]:
        """Return whether outlines are parts of the image's sides, and a form of boxes other than COCO's."""
        boxes, outlines, sizes = [], [], []
        for entry in entries[:: max(1, len(entries) // COMPARED)]:
            image = images.get(as_text(entry['image_id']))
            if image and any(entry.get('bbox') or ()) and not entry.get('iscrowd'):
                size = int(image['width']), int(image['height'])
                if outline := read_segmentation(entry.get('segmentation'), *size[::-1])[0]:
                    boxes.append(entry['bbox'])
                    outlines.append(outline_box(outline))
                    sizes.append(size)
        if not boxes:
            return False, None
        around, of_images = np.array(outlines), np.array(sizes)
        relative = bool((around[:, :2] + around[:, 2:]).max() <= 1 and of_images.min() > 1)
        if relative:
            self._add(Kind.FORM, 'its outlines', 'are from 0 to 1 across the image, not in pixels')
            around *= np.tile(of_images, 2)
        form = find_box_form(np.array(boxes, dtype=np.float64), around, of_images)
        if form:
            self._add(Kind.FORM, str(form))
        return relative, form

    def _normalise(self, entry: dict, image: dict, where: str) -> dict | None:
        """Fill in a copy of an object and return it, None if it can't be used."""
        height, width = int(image['height']), int(image['width'])
        entry['iscrowd'] = int(entry.get('iscrowd') or 0)
        if entry.pop('ignore', None) and not entry['iscrowd']:
            entry['iscrowd'] = 1
            self._add(Kind.IGNORED, where)
        outline, kind, what = read_segmentation(entry.get('segmentation'), height, width)
        if self._relative_outlines and isinstance(outline, list):
            outline = [polygon * np.tile([width, height], len(polygon) // 2) for polygon in outline]
            entry['area'] = None
        if self._box_form and any(entry.get('bbox') or ()):
            around = outline_box(outline) if outline else None
            entry['bbox'] = self._box_form.mend(entry['bbox'], around, (width, height))
        has_box = bool(entry.get('bbox')) and min(entry['bbox'][2:]) > 0
        if entry['iscrowd'] and not outline and has_box:
            outline, kind = box_outline(entry['bbox'], height, width), None
        if not outline and not has_box:
            self._add(Kind.NOWHERE if kind is Kind.NO_OUTLINE else kind or Kind.NOWHERE, where, what)
            return None
        if kind:
            self._add(kind, where, what)
        entry['segmentation'] = outline
        if not has_box:
            if any(entry.get('bbox') or ()):
                self._add(Kind.BOX, where)
            entry['bbox'] = outline_box(outline).tolist()
        elif outline and self._compare_boxes and not entry['iscrowd'] and not fit(entry['bbox'], outline_box(outline)):
            self._add(Kind.BOX, where)
        area = entry.get('area') or 0
        if not 0 < area <= LARGEST_AREA:
            if area:
                self._add(Kind.AREA, where)
            entry['area'] = mask_area(entry, height, width)
        if not box_has_area(entry, image):  # MMDetection leaves it out of training, but not of the evaluation
            self._add(Kind.BOX_UNUSABLE, where)
        elif self._compare_boxes and _reaches_out(entry['bbox'], width, height):
            self._add(Kind.OUTSIDE, where)
        return entry


class CocoAnnotations(COCO):
    """MMDetection's index of a COCO file, over content that :class:`CocoReader` has normalised.

    Objects are numbered from 1: COCO's evaluation stores the matched object's id in an array of numbers, where 0 means
    no match.

    Args:
        annotation_file: Path of the JSON file.
        annotated: False accepts a file without ``annotations``, as COCO's test-dev has.
        warn: Whether to log one line that counts the findings.

    Raises:
        InputError: The file is missing, isn't JSON or isn't in COCO format.
    """

    def __init__(self, annotation_file: str, annotated: bool = True, warn: bool = False) -> None:
        super().__init__()
        self.path = annotation_file
        content = read_json(annotation_file)
        if not annotated:
            content.setdefault('annotations', [])
        reader = CocoReader(content, annotation_file)
        reader.raise_failure()
        if warn and reader.findings:
            found = '; '.join(summarise(reader.findings))
            MMLogger.get_current_instance().warning(f'{annotation_file} has {found}.')
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
    return classes_of({**reader.content, 'annotations': content.get('annotations')})


def classes_of(content: dict) -> tuple[str, ...]:
    """Return the names of the categories of a file's content in the order of their ids, without :func:`groups_of`."""
    groups = groups_of(content)
    return tuple(each['name'] for each in sorted(content['categories'], key=_rank) if each['name'] not in groups)


def groups_of(content: dict) -> list[str]:
    """Return the names of categories that others have as "supercategory" and no object has.

    Roboflow's files begin with one, which is no class of the data.
    """
    pairs = [(each.get('supercategory'), each['name']) for each in content['categories']]
    above = {group for group, name in pairs if isinstance(group, str) and group != name}
    used = _used_categories(content)
    return [each['name'] for each in content['categories'] if each['name'] in above and as_text(each['id']) not in used]


def _without_namesake(content: dict) -> Any:
    """Return the categories without the group of one class that has the class's name, as Roboflow's files may begin."""
    categories = content.get('categories')
    if not isinstance(categories, list) or not all(isinstance(each, dict) for each in categories):
        return categories
    classes = [each['name'] for each in categories if 'name' in each and each['name'] == each.get('supercategory')]
    used = _used_categories(content)
    return [
        each
        for each in categories
        if each.get('name') not in classes
        or each['name'] == each.get('supercategory')
        or as_text(each.get('id')) in used
    ]


def _used_categories(content: dict) -> set[str]:
    """Return the ids, as text, of the categories that an entry names."""
    annotations = content.get('annotations')
    entries = annotations if isinstance(annotations, list) else ()
    return {as_text(entry.get('category_id')) for entry in entries if isinstance(entry, dict)}


def _rank(category: dict) -> tuple[bool, float, str]:
    """Return what categories are sorted by: numbers, also in text, come first and by their value."""
    text = as_text(category['id'])
    try:
        return False, int(text) if text.isdecimal() else float(text), text
    except (OverflowError, ValueError):
        return True, 0, text


def read_json(path: str | Path) -> dict:
    """Return the object that a JSON file holds.

    Raises:
        InputError: The file is missing, can't be read, or isn't JSON with an object.
    """
    try:
        content = json.loads(Path(path).read_bytes())  # which finds out UTF-8 or 16, with or without a mark
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
    if not isinstance(segmentation, list):
        return [], Kind.POLYGON, '(not a list of lists of numbers)'
    if all(isinstance(value, int | float | None) for value in segmentation):  # x1, y1, x2, y2, ...
        segmentation = [segmentation]
    elif all(isinstance(value, list) and len(value) == 2 and not isinstance(value[0], list) for value in segmentation):
        segmentation = [segmentation]  # [x1, y1], [x2, y2], ...
    if not any(segmentation):
        return [], Kind.NO_OUTLINE, ''
    read = [_read_polygon(part, limit=10 * max(height, width) + 1000) for part in segmentation]
    usable = [polygon for polygon in read if isinstance(polygon, np.ndarray)]
    faults = dict.fromkeys(fault for fault in read if isinstance(fault, str))
    return usable, Kind.POLYGON if faults else None, f'({", ".join(faults)})' if faults else ''


def _read_polygon(value: Any, limit: float) -> np.ndarray | str:
    """Return x1, y1, x2, y2, ... of a polygon given so or as pairs, or what is wrong with it."""
    try:
        polygon = np.asarray(value, dtype=np.float64)
    except (OverflowError, TypeError, ValueError):
        return 'not a list of lists of numbers'
    if polygon.ndim == 2 and polygon.shape[1] == 2:
        polygon = polygon.reshape(-1)
    if polygon.ndim != 1:
        return 'not a list of lists of numbers'
    if not np.isfinite(polygon).all():
        return 'a number is NaN, infinite or missing'
    if len(polygon) % 2:
        return f'x without y: {len(polygon)} numbers, an odd count'
    if len(polygon) < 6:
        return 'under three points'
    # pycocotools allocates memory for every pixel that an outline passes, inside the image or not.
    return polygon if np.abs(polygon).max() <= limit else 'far outside its image'


def mask_area(entry: dict, height: int, width: int) -> float:
    """Return the area of a normalised object's outline in pixels, of its box where it has none."""
    if entry['segmentation']:
        return float(mask_utils.area(outline_rle(entry['segmentation'], height, width)))
    return entry['bbox'][2] * entry['bbox'][3]


def outline_rle(segmentation: list[np.ndarray] | dict, height: int, width: int) -> dict:
    """Return an outline as compressed RLE."""
    if isinstance(segmentation, dict):
        return segmentation
    return mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))


def box_outline(box: Sequence[float], height: int, width: int) -> list[np.ndarray]:
    """Return the part of a box inside its image as a polygon."""
    x, y, w, h = box
    left, right = np.clip([x, x + w], 0, width)
    top, bottom = np.clip([y, y + h], 0, height)
    return [np.array([left, top, right, top, right, bottom, left, bottom], dtype=np.float64)]


def outline_box(segmentation: list[np.ndarray] | dict) -> np.ndarray:
    """Return x, y, width and height of the box around an outline."""
    if isinstance(segmentation, dict):
        return mask_utils.toBbox(segmentation)
    points = np.concatenate(segmentation).reshape(-1, 2)
    return np.concatenate([points.min(axis=0), np.ptp(points, axis=0)])


def corners(entries: Sequence[dict]) -> np.ndarray:
    """Return the boxes of normalised objects as x1, y1, x2, y2 in pixels, shape (N, 4)."""
    boxes = np.array([entry['bbox'] for entry in entries], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def box_has_area(entry: dict, image: dict) -> bool:
    """Return whether MMDetection trains on a box: at least a pixel wide and high, and not outside the image."""
    x, y, width, height = entry['bbox']
    inside = min(x + width, image['width']) > max(x, 0) and min(y + height, image['height']) > max(y, 0)
    return inside and width >= 1 and height >= 1 and entry['area'] > 0


def _reaches_out(box: list[float], width: int, height: int) -> bool:
    """Return whether over a tenth of a box's width or height, and over a pixel, lies outside the image."""
    x, y, w, h = box
    return max(-x, x + w - width) > max(1, 0.1 * w) or max(-y, y + h - height) > max(1, 0.1 * h)


def summarise(findings: Iterable[Finding], examples: int = 3) -> list[str]:
    """Return a phrase for each kind of finding, the worst and most frequent first: its number and a few examples."""
    grouped: dict[Kind, list[Finding]] = defaultdict(list)
    for finding in findings:
        grouped[finding.kind].append(finding)
    ranked = sorted(grouped.items(), key=lambda item: (-item[0].severity, -len(item[1])))
    return [f'{len(found)} {kind.words}: {shorten(found, examples)}' for kind, found in ranked]


def shorten(values: Iterable[Any], limit: int = 10) -> str:
    """Return the first few values as a list in text, and how many more there are."""
    values = [str(value) for value in values]
    more = f' and {len(values) - limit} more' if len(values) > limit else ''
    return ', '.join(values[:limit]) + more
