"""The check of a data set: counts of its objects, and findings about the file, its images and its objects."""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from tqdm import tqdm

from centermask.datasets.assignment import Assignment, has_fcos_head, scale_for
from centermask.datasets.coco import innermost, paths_of
from centermask.datasets.coco_annotations import (
    CocoReader,
    Finding,
    Kind,
    Severity,
    box_has_area,
    corners,
    read_json,
    summarise,
)
from centermask.datasets.image_folder import ImageFolder
from centermask.datasets.images import (
    MAX_PIXELS,
    ImageFacts,
    check_sample,
    describe_range,
    describe_size,
    inspect_image,
    pil_unlimited,
)
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError, RunError

# COCO's size classes and the sides of the squares between them, in pixels of the original image.
AREAS = ('small', 'medium', 'large')
AREA_LIMITS = (32, 96)
# Number of images whose FCOS targets are computed before a training starts, a few seconds, or at several sizes.
SAMPLE = 300
# The part of the objects that must be too small before larger images are proposed.
MANY = 0.01
CHANNELS = {1: 'gray', 2: 'gray with alpha', 3: 'RGB', 4: 'RGB with alpha'}
HEADINGS = {
    Severity.FAILS: 'A training would fail or learn nothing:',
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
        listed: Number of objects and crowds that the file lists.
        not_learned: Number of objects that no location learns.
        empty: Number of images without objects.
        crowds: Number of crowds.
        objects: Number of objects, crowds not counted, by class and size.
        images_with: Number of images with each class.
        levels: Number of masks pooled from each level, by its stride.
        outlines: Number of objects with polygons, RLE or neither.
        images: Number of images by their channels and bits, and of those turned by EXIF.
        boxes: The boxes (x1, y1, x2, y2), shape (G, 4), the width and the height of each image with objects, or of a
            sample.
    """

    ann_file: Path
    content: dict
    findings: list[Finding]
    listed: int
    not_learned: int = 0
    empty: int = 0
    crowds: int = 0
    objects: dict[str, Counter] = field(default_factory=dict)
    images_with: Counter = field(default_factory=Counter)
    levels: Counter = field(default_factory=Counter)
    outlines: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    boxes: list[tuple[np.ndarray, int, int]] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        """Return whether a training would fail."""
        return any(finding.kind.severity == Severity.FAILS for finding in self.findings)

    @property
    def lost(self) -> int:
        """Return the number of objects that a training would lose: whole, or their damaged outlines.

        Objects that were never outlined, and those that are too many for an image, aren't counted.
        """
        not_outlined = sum(finding.kind is Kind.NO_OUTLINE for finding in self.findings)
        damaged = max(0, self.outlines['only a box'] - not_outlined)
        return self.listed - len(self.content['annotations']) + self.not_learned + damaged


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
    check, listed = _read(content, ann_file, compare_boxes=True)
    on_disk = ImageFolder(images)
    for image, _ in listed:
        if path := on_disk.find(image['file_name']):
            image['file_name'] = os.path.relpath(path, images)
    facts: list[ImageFacts] = []
    inspect = partial(_inspect, images, assignment.max_pixels)
    pause = 0.1 if sys.stderr.isatty() else 10  # seconds
    with warnings.catch_warnings(), pil_unlimited(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter('ignore')  # of PIL, about metadata
        reports = pool.map(inspect, [image['file_name'] for image, _ in listed])
        bar = tqdm(reports, 'Checking', len(listed), unit='image', mininterval=pause, delay=pause)
        for (image, objects), found in zip(listed, bar, strict=True):
            if isinstance(found, str):
                check.findings.append(Finding(Kind.IMAGE, image['file_name'], f'({found})'))
                continue
            facts.append(found)
            stated = image['width'], image['height']
            if found.size == stated:
                _add(check, image, objects, assignment)
            else:
                what = f'{describe_size(found, stated)} but the file states {stated[0]}x{stated[1]}'
                check.findings.append(Finding(Kind.SIZE, image['file_name'], what))
    if remark := describe_range(facts):
        check.findings.append(Finding(Kind.RANGE, '', remark))
    check.images = Counter(f'{CHANNELS[found.channels]} of {found.bits} bits' for found in facts)
    if turned := sum(found.orientation > 1 for found in facts):
        check.images['turned by EXIF'] = turned
    _conclude(check, assignment)
    return check


def _inspect(folder: Path, max_pixels: int, name: str) -> ImageFacts | str:
    """Return the facts of an image, or why training would refuse it."""
    try:
        return inspect_image(folder / name, max_pixels)
    except InputError as error:
        return str(error)


def _read(content: dict, ann_file: Path, compare_boxes: bool) -> tuple[Check, list[tuple[dict, list[dict]]]]:
    """Return a check without images yet, and each image with those of its objects that MMDetection trains on."""
    reader = CocoReader(content, ann_file, compare_boxes=compare_boxes)
    usable = reader.content
    images: dict[Any, tuple[dict, list[dict]]] = {image['id']: (image, []) for image in usable['images']}
    trainable = [entry for entry in usable['annotations'] if box_has_area(entry, images[entry['image_id']][0])]
    for entry in trainable:
        images[entry['image_id']][1].append(entry)
    kept = {**usable, 'images': [], 'annotations': trainable}
    check = Check(ann_file, kept, reader.findings, listed=len(content['annotations']))
    check.objects = {category['name']: Counter() for category in usable['categories']}
    return check, [*images.values()]


def _add(check: Check, image: dict, annotations: list[dict], assignment: Assignment | None) -> None:
    """Count the objects that training takes of an image, and with an assignment those that no location learns."""
    check.content['images'].append(image)
    objects = [entry for entry in annotations if not entry['iscrowd']]
    check.crowds += len(annotations) - len(objects)
    check.empty += not objects
    names = {category['id']: category['name'] for category in check.content['categories']}
    check.images_with.update({names[entry['category_id']] for entry in objects})
    for entry in objects:
        area = AREAS[sum(entry['area'] >= side**2 for side in AREA_LIMITS)]
        check.objects[names[entry['category_id']]][area] += 1
        outline = entry['segmentation']
        check.outlines['RLE' if isinstance(outline, dict) else 'polygons' if outline else 'only a box'] += 1
    if assignment and objects:
        boxes = corners(objects)
        size = int(image['width']), int(image['height'])
        check.boxes.append((boxes, *size))
        for index in np.flatnonzero(~assignment.learned(boxes, *size)):
            check.not_learned += 1
            where = f'object {objects[index].get("id")} on {image["file_name"]}'
            check.findings.append(Finding(Kind.NOT_LEARNED, where))
        check.levels.update(assignment.strides[level] for level in assignment.levels(boxes, *size))


def _conclude(check: Check, assignment: Assignment | None) -> None:
    """Leave out the objects of images that can't be used, and add the findings about all that are left."""
    used = {image['id'] for image in check.content['images']}
    check.content['annotations'] = [entry for entry in check.content['annotations'] if entry['image_id'] in used]
    total = sum(counts.total() for counts in check.objects.values())
    if not total:
        check.findings.append(Finding(Kind.NOTHING, 'the file', 'has no usable objects but crowds'))
    elif not any(entry['segmentation'] for entry in check.content['annotations'] if not entry['iscrowd']):
        check.findings.append(Finding(Kind.NOTHING, 'the file', 'has no object with an outline to learn masks from'))
    per_image = Counter(entry['image_id'] for entry in check.content['annotations'] if not entry['iscrowd'])
    limits = [
        (Kind.DETECTIONS, 'model.test_cfg.max_per_img', assignment and assignment.detections),
        (Kind.ROIS, 'model.train_cfg.sampler.num', assignment and assignment.rois),
    ]
    for kind, key, limit in limits:
        if over := [objects for objects in per_image.values() if limit and objects > limit]:
            lost = sum(over) - len(over) * (limit or 0)
            what = f'leaves out {lost} of {total} objects ({len(over)} images hold more, up to {max(over)})'
            check.findings.append(Finding(kind, f'{key}={limit}', what))


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
    for what, counted in (('Outlines', check.outlines), ('Images', check.images)):
        if counted:
            lines.append(f'{what}: {", ".join(f"{count} {kind}" for kind, count in counted.most_common())}')
    if count := check.levels.total():
        levels = (f'P{stride.bit_length() - 1} {n} ({n / count:.0%})' for stride, n in sorted(check.levels.items()))
        lines += ['', f'Levels that masks are pooled from (Eq. 2): {", ".join(levels)}']
    return '\n'.join(lines)


def describe_findings(findings: Iterable[Finding], least: Severity = Severity.NOTE) -> str:
    """Return a line for each kind of finding of at least a severity, with its number and three examples.

    It is '' where there are none.
    """
    lines = []
    for severity, heading in HEADINGS.items():
        found = [finding for finding in findings if finding.kind.severity == severity >= least]
        if found:
            lines += [heading, *(f'    {line}' for line in summarise(found))]
    return '\n'.join(lines)


def describe_scale(check: Check, assignment: Assignment | None) -> str:
    """Return the image size at which FCOS would learn more objects, '' where it learns most of them already."""
    if not assignment or check.not_learned <= MANY * sum(len(boxes) for boxes, _, _ in check.boxes):
        return ''
    sample = check.boxes[:: math.ceil(len(check.boxes) / SAMPLE)]
    proposal = scale_for(assignment, sample, MANY)
    if proposal.factor == 1:
        return ''
    return (
        f'With images resized to {proposal.factor:g} times the size, scale={proposal.scale} in the pipelines, '
        f'FCOS would learn all but {proposal.lost:.1%} of the objects.'
    )


def write_report(check: Check, out: Path) -> None:
    """Write counts and every finding as JSON."""
    counts = ('listed', 'lost', 'not_learned', 'empty', 'crowds', 'objects', 'images_with', 'outlines')
    findings = [
        {
            'severity': finding.kind.severity.name.lower(),
            'kind': finding.kind.name.lower(),
            'words': finding.kind.words,
            'where': finding.where,
            'what': finding.what,
        }
        for finding in check.findings
    ]
    report = {'annotations': str(check.ann_file), 'images': len(check.content['images'])}
    report |= {name: getattr(check, name) for name in counts}
    atomic_write_text(out, json.dumps({**report, 'findings': findings}, indent=1, ensure_ascii=False))


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
    """Check the annotations that a config trains on, and a sample of the images, also for their FCOS targets.

    Args:
        cfg: Config of a training; data that aren't in COCO format in a local folder aren't checked.
        with_tables: Whether to return the tables of classes and levels too.

    Returns:
        Text for the user, '' if no object would be lost and no tables are wanted.

    Raises:
        InputError: The annotation file or an image of a sample can't be used.
    """
    try:
        dataset = innermost(cfg.get('train_dataloader') or {})
        ann_file, images = paths_of(dataset)
    except (AttributeError, TypeError):  # building the data set reports that
        return ''
    if not (ann_file.is_file() and images.is_dir()):
        return ''  # building the data set reports that
    check, listed = _read(read_json(ann_file), ann_file, compare_boxes=False)
    assignment = Assignment(cfg) if has_fcos_head(cfg) else None
    step = max(1, len(listed) // SAMPLE)
    for i, (image, objects) in enumerate(listed):
        _add(check, image, objects, None if i % step else assignment)
    _conclude(check, assignment)
    on_disk = ImageFolder(images)
    paths = {on_disk.find(image['file_name']): image for image, objects in listed if objects}
    stated = {path: (image['width'], image['height']) for path, image in paths.items() if path}
    if remark := check_sample(stated, str(ann_file), dataset.get('max_pixels', MAX_PIXELS)):
        check.findings.append(Finding(Kind.RANGE, '', remark))
    lost = describe_findings(check.findings, Severity.LOSES)
    if not (lost or with_tables):
        return ''
    lines = [describe(check), ''] if with_tables else [f'{ann_file}:']
    lines.append(lost or 'A training would lose no object.')
    if lost:
        if larger := describe_scale(check, assignment):
            lines.append(larger)
        lines.append(f'To check all, images too: python tools/check_dataset.py {ann_file} {images}')
    return '\n'.join(lines)
