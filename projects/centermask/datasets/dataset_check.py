"""The check of a data set: counts of its objects, and findings about the file, its images and its objects."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from PIL import Image
from tqdm import tqdm

from centermask.datasets.assignment import Assignment, Size, has_fcos_head
from centermask.datasets.coco import innermost
from centermask.datasets.coco_annotations import (
    CocoReader,
    Finding,
    Kind,
    Severity,
    box_has_area,
    read_json,
    summarise,
)
from centermask.datasets.image_folder import ImageFolder
from centermask.datasets.images import check_image, pil_unlimited
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError, RunError

# COCO's size classes and the sides of the squares between them, in pixels of the original image.
AREAS = ('small', 'medium', 'large')
AREA_LIMITS = (32, 96)
# Number of images whose FCOS targets are computed before a training starts: a few seconds.
SAMPLE = 300
EXIF_ORIENTATION = 0x0112
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
        content: Its normalised content, without what can't be used.
        findings: Everything that is wrong.
        empty: Number of images without objects.
        crowds: Number of crowds.
        objects: Number of objects, crowds not counted, by class and size.
        images_with: Number of images with each class.
        levels: Number of masks pooled from each level, by its stride.
    """

    ann_file: Path
    content: dict
    findings: list[Finding]
    empty: int = 0
    crowds: int = 0
    objects: dict[str, Counter] = field(default_factory=dict)
    images_with: Counter = field(default_factory=Counter)
    levels: Counter = field(default_factory=Counter)

    @property
    def trains(self) -> bool:
        """Return whether a training neither fails nor loses an object."""
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
    reader = CocoReader(content, ann_file, compare_boxes=True)
    usable, findings = reader.content, [*reader.findings]
    on_disk = ImageFolder(images)
    for image in usable['images']:
        if path := on_disk.find(image['file_name']):
            image['file_name'] = os.path.relpath(path, images)
    names = [image['file_name'] for image in usable['images']]
    inspect = partial(inspect_image, images, max_pixels=assignment.max_pixels)
    with warnings.catch_warnings(), pil_unlimited(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter('ignore')  # of PIL, about metadata
        reports = list(tqdm(pool.map(inspect, names), 'Checking', len(names), unit='image', disable=None))
    kept = {}
    for image, (size, found) in zip(usable['images'], reports, strict=True):
        findings += found
        stated = image['width'], image['height']
        if size == stated:
            kept[image['id']] = image
        elif size:
            what = f'is {size[0]}x{size[1]}, not {stated[0]}x{stated[1]}'
            findings.append(Finding(Kind.SIZE, image['file_name'], what))
    check = Check(ann_file, _trainable(usable, kept), findings)
    _count(check, assignment)
    return check


def inspect_image(folder: Path, name: str, max_pixels: int) -> tuple[Size | None, list[Finding]]:
    """Read an image file to its end.

    Returns:
        Width and height as training reads it, None where training would refuse it, and the findings.
    """
    findings = []
    try:
        check_image(folder / name, max_pixels, decode=True)
        with Image.open(folder / name) as image:
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        pixels = cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError('OpenCV can not read it')
        height, width = pixels.shape[:2]
    except InputError as error:
        return None, [Finding(Kind.IMAGE, name, f'({error})')]
    except Exception:  # a damaged file may raise anything
        return None, [Finding(Kind.IMAGE, name, '(it is damaged or not an image)')]
    if orientation != 1:
        findings.append(Finding(Kind.ROTATED, name))
    if pixels.dtype != np.uint8:
        findings.append(Finding(Kind.DEEP, name))
    return (height, width) if orientation > 4 else (width, height), findings


def _trainable(content: dict, images: dict[Any, dict]) -> dict:
    """Return the content with these images and those of their objects that MMDetection trains on."""
    annotations = [
        entry
        for entry in content['annotations']
        if entry['image_id'] in images and box_has_area(entry, images[entry['image_id']])
    ]
    return {**content, 'images': [*images.values()], 'annotations': annotations}


def _count(check: Check, assignment: Assignment | None, sample: int | None = None) -> None:
    """Count the objects that training takes, and find those that no location learns on a sample of the images."""
    names = {category['id']: category['name'] for category in check.content['categories']}
    check.objects = {name: Counter() for name in names.values()}
    grouped: dict[Any, list[dict]] = defaultdict(list)
    for entry in check.content['annotations']:
        grouped[entry['image_id']].append(entry)
    step = max(1, len(check.content['images']) // sample) if sample else 1
    for i, image in enumerate(check.content['images']):
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
                where = f'object {objects[index].get("id")} on {image["file_name"]}'
                check.findings.append(Finding(Kind.NOT_LEARNED, where))
            check.levels.update(assignment.strides[level] for level in assignment.levels(boxes, *size))
    if not any(counts.total() for counts in check.objects.values()):
        check.findings.append(Finding(Kind.NOTHING, 'the file', 'has no usable objects but crowds'))
    elif not any(entry['segmentation'] for entry in check.content['annotations'] if not entry['iscrowd']):
        check.findings.append(Finding(Kind.NOTHING, 'the file', 'has no object with an outline to learn masks from'))


def describe(check: Check) -> str:
    """Return the tables of classes and levels as text."""
    images = len(check.content['images'])
    lines = [f'{check.ann_file}: {images} images, {check.empty} without objects, {check.crowds} crowds', '']
    width = max(map(len, ('all classes', *check.objects)))
    lines.append(f'{"class":{width}}  {"objects":>8} {"images":>8}' + ''.join(f' {area:>8}' for area in AREAS))
    total: Counter = sum(check.objects.values(), Counter())
    images_with = {**check.images_with, 'all classes': images - check.empty}
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
            lines += [heading, *(f'    {line}' for line in summarise(found))]
    return '\n'.join(lines) or ('Nothing is wrong.' if least == Severity.NOTE else 'A training would lose no object.')


def write_usable(check: Check, out: Path) -> None:
    """Write the content of the file as the reader normalised it, without what can't be used.

    Raises:
        InputError: ``out`` is the file that was checked.
        RunError: No object would be left to train on, or the file can't be written.
    """
    if out.exists() and out.samefile(check.ann_file):
        raise InputError(f'--fix {out} is the file that is checked: name another one, the old one stays as it is.')
    if all(entry['iscrowd'] for entry in check.content['annotations']):
        raise RunError(f'--fix {out} is not written: no object would be left to train on, see above what is wrong.')
    as_json = json.dumps(
        check.content, default=lambda value: value.decode() if isinstance(value, bytes) else value.tolist()
    )
    atomic_write_text(out, as_json)


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
    except (AttributeError, TypeError):  # building the data set reports that
        return ''
    if not (ann_file.is_file() and images.is_dir()):
        return ''  # building the data set reports that
    reader = CocoReader(read_json(ann_file), ann_file)
    usable = _trainable(reader.content, {image['id']: image for image in reader.content['images']})
    check = Check(ann_file, usable, reader.findings)
    _count(check, Assignment(cfg) if has_fcos_head(cfg) else None, SAMPLE)
    if check.trains and not with_tables:
        return ''
    lines = [describe(check), ''] if with_tables else [f'{ann_file}:']
    lines.append(describe_findings(check.findings, Severity.LOSES))
    if not check.trains:
        lines.append(f'To check all, images too: python tools/check_dataset.py {ann_file} {images}')
    return '\n'.join(lines)
