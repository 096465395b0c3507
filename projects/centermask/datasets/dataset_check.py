"""The check of a data set: counts of its objects, and findings about the file, its images and its objects."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
from mmengine.config import Config
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from tqdm import tqdm

from centermask.datasets.assignment import Assignment, has_fcos_head
from centermask.datasets.coco import innermost
from centermask.datasets.coco_annotations import (
    CocoReader,
    Finding,
    Kind,
    Severity,
    Size,
    box_has_area,
    read_json,
    shorten,
)
from centermask.datasets.images import UnreadableError, check_image, pil_unlimited
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError, RunError

# COCO's size classes and the sides of the squares between them, in pixels of the original image.
AREAS = ('small', 'medium', 'large')
AREA_LIMITS = (32, 96)
# Number of images whose FCOS targets are computed before a training starts: a few seconds.
SAMPLE = 300
# Difference of two aspect ratios that rounding explains.
SAME_RATIO = 0.01
EXIF_ORIENTATION = 0x0112
TIFF_BITS_PER_SAMPLE = 258
PNG_BIT_DEPTH = 24  # its offset in the file
END_OF_JPEG = b'\xff\xd9'
HEADINGS = {
    Severity.FAILS: 'A training would fail:',
    Severity.LOSES: 'A training would lose objects:',
    Severity.NOTE: 'Worth a look:',
}


@dataclass
class Check:
    """The result of a check.

    Attributes:
        ann_file: Path of the annotation file.
        images: Number of images.
        empty: Number of images without objects.
        crowds: Number of crowds.
        objects: Number of objects that training takes, crowds not counted, by class and size.
        images_with: Number of images with each class.
        levels: Number of masks pooled from each level, by its stride.
        findings: Everything that is wrong.
        repaired: Content of the file with everything corrected that can be, {} if the images weren't read.
    """

    ann_file: Path
    images: int = 0
    empty: int = 0
    crowds: int = 0
    objects: dict[str, Counter] = field(default_factory=dict)
    images_with: Counter = field(default_factory=Counter)
    levels: Counter = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    repaired: dict = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether a training neither fails nor loses an object."""
        return all(finding.kind.severity == Severity.NOTE for finding in self.findings)


def check_dataset(ann_file: Path, images: Path, assignment: Assignment) -> Check:
    """Read annotations and images, and look for everything that is wrong.

    Args:
        ann_file: File in COCO format.
        images: Folder that ``file_name`` is relative to.
        assignment: Determines the objects that no location learns, the levels, and the most pixels of an image.

    Raises:
        InputError: The file can't be read, lacks a list or mixes ids of two types, or ``images`` is no folder.
    """
    content = read_json(ann_file)
    if not images.is_dir():
        raise InputError(f'The folder of images {images} does not exist: name the one that "file_name" is relative to.')
    trained = CocoReader(content, ann_file).content
    entries = [entry for entry in content['images'] if isinstance(entry, dict)]
    names = [entry['file_name'] for entry in entries if isinstance(entry.get('file_name'), str)]
    with warnings.catch_warnings(), pil_unlimited(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter('ignore')  # of PIL, about metadata
        reports = pool.map(lambda name: inspect_image(images / name, assignment.max_pixels), names)
        progress = tqdm(reports, 'Checking', len(names), unit='image', disable=None)
        by_name = dict(zip(names, progress, strict=True))
    sizes, dropped, findings = _compare_images(trained, by_name)

    reader = CocoReader(content, ann_file, repair=True, sizes=sizes)
    check = Check(ann_file, findings=[*reader.findings, *findings])
    kept = {image['id']: image for image in reader.content['images'] if image['file_name'] not in dropped}
    annotations = [entry for entry in reader.content['annotations'] if entry['image_id'] in kept]
    check.repaired = {**reader.content, 'images': [*kept.values()], 'annotations': annotations}
    _count(check, trained, assignment)
    return check


class ImageReport(NamedTuple):
    """The findings about an image file, and its width and height as training reads it, None if it can't."""

    kinds: list[Kind]
    size: Size | None


def inspect_image(path: Path, max_pixels: int) -> ImageReport:
    """Read an image file to its end, unless training would refuse it."""
    if not os.path.isfile(path):
        return ImageReport([Kind.MISSING], None)
    try:
        check_image(path, max_pixels)
        content = path.read_bytes()
        kinds = _inspect_header(path, content)
        pixels = mmcv.imfrombytes(content)  # as LoadImageFromFile does
        return ImageReport(kinds, (pixels.shape[1], pixels.shape[0]))
    except Exception as error:  # a damaged file may raise anything
        refused = isinstance(error, InputError) and not isinstance(error, UnreadableError)
        return ImageReport([Kind.REFUSED if refused else Kind.UNREADABLE], None)


def _inspect_header(path: Path, content: bytes) -> list[Kind]:
    """Return the findings about an image's header; raise an error if it is a truncated JPEG."""
    kinds = []
    with Image.open(path) as image:
        if image.format == 'JPEG' and END_OF_JPEG not in content[-64:]:
            image.load()  # OpenCV fills the missing part with gray
        bits = image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (8,)) if isinstance(image, TiffImageFile) else (8,)
        deep_png = image.format == 'PNG' and content[PNG_BIT_DEPTH] == 16
        if max(bits) > 8 or image.mode.startswith('I') or deep_png:
            kinds.append(Kind.DEEP)
        if image.getexif().get(EXIF_ORIENTATION, 1) != 1:
            kinds.append(Kind.ROTATED)
    return kinds


def _compare_images(trained: dict, reports: dict[str, ImageReport]) -> tuple[dict[str, Size], set[str], list[Finding]]:
    """Compare images with their entries.

    Returns:
        Actual sizes of the images of which the file states none or a wrong one, names of the images that can't be used,
        and the findings about images.
    """
    sizes: dict[str, Size] = {}
    dropped, findings, boxes = set(), [], defaultdict(list)
    for entry in trained['annotations']:
        boxes[entry['image_id']].append(entry['bbox'])
    entries = {image['file_name']: image for image in trained['images']}
    for name, (kinds, size) in reports.items():
        findings += [Finding(kind, name, change='left out with its objects' if size is None else '') for kind in kinds]
        entry = entries.get(name)
        if size is None:
            dropped.add(name)
        elif entry is None:
            sizes[name] = size
        elif size != (entry['width'], entry['height']):
            what = f'is {size[0]}x{size[1]}, not {entry["width"]}x{entry["height"]}'
            if _fits(boxes[entry['id']], (entry['width'], entry['height']), size):
                sizes[name] = size
                findings.append(Finding(Kind.SIZE, name, what, 'size corrected'))
            else:
                dropped.add(name)
                findings.append(Finding(Kind.SIZE, name, what, 'left out with its objects'))
    return sizes, dropped, findings


def _fits(boxes: list[list[float]], stated: Size, actual: Size) -> bool:
    """Return whether objects may be of an image of another size: all lie in it, and it isn't only scaled."""
    ratios = [real / said for real, said in zip(actual, stated, strict=True)]
    inside = all(x + w <= actual[0] + 1 and y + h <= actual[1] + 1 for x, y, w, h in boxes)
    return inside and abs(ratios[0] / ratios[1] - 1) >= SAME_RATIO


def _count(check: Check, trained: dict, assignment: Assignment | None, sample: int | None = None) -> None:
    """Count the objects that training takes, and find those that no location learns on a sample of the images."""
    names = {category['id']: category['name'] for category in trained['categories']}
    images = {image['id']: image for image in trained['images']}
    check.images = len(images)
    check.objects = {name: Counter() for name in names.values()}
    grouped: dict[Any, list[dict]] = defaultdict(list)
    for entry in trained['annotations']:
        if box_has_area(entry, images[entry['image_id']]):
            grouped[entry['image_id']].append(entry)
    step = max(1, len(images) // sample) if sample else 1
    for i, image in enumerate(images.values()):
        objects = [entry for entry in grouped[image['id']] if not entry['iscrowd']]
        check.crowds += len(grouped[image['id']]) - len(objects)
        check.empty += not objects
        check.images_with.update({names[entry['category_id']] for entry in objects})
        for entry in objects:
            area = AREAS[sum(entry['area'] >= side**2 for side in AREA_LIMITS)]
            check.objects[names[entry['category_id']]][area] += 1
        if assignment and objects and i % step == 0:
            boxes = np.array([entry['bbox'] for entry in objects], dtype=np.float64)
            boxes[:, 2:] += boxes[:, :2]
            size = int(image['width']), int(image['height'])
            for index in np.flatnonzero(~assignment.learned(boxes, *size)):
                where = f'object {objects[index]["id"]} on {image["file_name"]}'
                check.findings.append(Finding(Kind.NOT_LEARNED, where))
            check.levels.update(assignment.strides[level] for level in assignment.levels(boxes, *size))
    if not any(counts.total() for counts in check.objects.values()):
        check.findings.append(Finding(Kind.NOTHING, 'the file', 'has no usable objects but crowds'))


def describe(check: Check) -> str:
    """Return the tables of classes and levels as text."""
    lines = [f'{check.ann_file}: {check.images} images, {check.empty} without objects, {check.crowds} crowds', '']
    width = max(map(len, ('all classes', *check.objects)))
    lines.append(f'{"class":{width}}  {"objects":>8} {"images":>8}' + ''.join(f' {area:>8}' for area in AREAS))
    total: Counter = sum(check.objects.values(), Counter())
    images_with = {**check.images_with, 'all classes': check.images - check.empty}
    for name, counts in (*check.objects.items(), ('all classes', total)):
        by_area = ''.join(f' {counts[area]:8d}' for area in AREAS)
        lines.append(f'{name:{width}}  {counts.total():8d} {images_with.get(name, 0):8d}{by_area}')
    lines.append('Small objects have less than 32² pixels of the original image, large ones 96² or more.')
    if count := check.levels.total():
        levels = (f'P{stride.bit_length() - 1} {n} ({n / count:.0%})' for stride, n in sorted(check.levels.items()))
        lines += ['', f'Levels that masks are pooled from (Eq. 2): {", ".join(levels)}']
    return '\n'.join(lines)


def describe_findings(findings: Iterable[Finding], least: Severity = Severity.NOTE) -> str:
    """Return a line for each kind of finding of at least a severity, with its number and three examples."""
    lines = []
    for severity, heading in HEADINGS.items():
        found = [finding for finding in findings if finding.kind.severity == severity >= least]
        if found:
            lines += [heading, *_group((f.kind.words, f'{f.where} {f.what}'.strip()) for f in found)]
    return '\n'.join(lines) or ('Nothing is wrong.' if least == Severity.NOTE else 'A training would lose no object.')


def _group(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each first value, the most frequent first: its number, and three of the second values."""
    grouped = defaultdict(list)
    for key, example in pairs:
        grouped[key].append(example)
    ranked = sorted(grouped.items(), key=lambda item: -len(item[1]))
    return [f'{len(examples):8d}  {key}: {shorten(examples, 3)}' for key, examples in ranked]


def write_repaired(check: Check, out: Path) -> tuple[list[str], list[str]]:
    """Write the content of the file as it was normalised, without what can't be used.

    Args:
        check: What :func:`check_dataset` returned.
        out: File to write; its images are those of the old one.

    Returns:
        The changes, and what still loses objects, as lines of text.

    Raises:
        InputError: ``out`` is the file that was checked.
        RunError: No object would be left to train on, or the file can't be written.
    """
    if out.exists() and out.samefile(check.ann_file):
        raise InputError(f'--fix {out} is the file that is checked: name another one, the old one stays as it is.')
    if all(entry['iscrowd'] for entry in check.repaired['annotations']):
        raise RunError(f'--fix {out} is not written: no object would be left to train on, see above what is wrong.')
    atomic_write_text(out, json.dumps(check.repaired, default=lambda polygon: polygon.tolist()))
    changes = _group((f'{f.kind.words}: {f.change}', f.where) for f in check.findings if f.change)
    gone = {f.where for f in check.findings if f.change == 'left out'}
    lost = [f for f in check.findings if f.kind is Kind.NOT_LEARNED and f.where not in gone]
    return changes, _group((f.kind.words, f.where) for f in lost)


def check_training_data(cfg: Config, with_tables: bool) -> str:
    """Check the annotations that a config trains on, and FCOS targets of a sample of the images.

    Args:
        cfg: Config of a training; data that aren't in COCO format in a local folder aren't checked.
        with_tables: Whether to return the tables of classes and levels too.

    Returns:
        Text for the user, '' if no object would be lost and no tables are wanted.

    Raises:
        InputError: The annotation file can't be used.
    """
    try:
        dataset = innermost(cfg.get('train_dataloader') or {})
        root = Path(dataset.get('data_root') or '')
        ann_file, images = root / dataset.get('ann_file', ''), root / (dataset.get('data_prefix') or {}).get('img', '')
    except (AttributeError, TypeError):  # the data set itself refuses these
        return ''
    if not (ann_file.is_file() and images.is_dir()):
        return ''  # the data set itself says so if it needs them
    reader = CocoReader(read_json(ann_file), ann_file)
    check = Check(ann_file, findings=reader.findings)
    _count(check, reader.content, Assignment(cfg) if has_fcos_head(cfg) else None, SAMPLE)
    if check.trains and not with_tables:
        return ''
    lines = [describe(check), ''] if with_tables else [f'{ann_file}:']
    lines.append(describe_findings(check.findings, Severity.LOSES))
    if not check.trains:
        lines.append(f'To check all, images too: python tools/check_dataset.py {ann_file} {images}')
    return '\n'.join(lines)
