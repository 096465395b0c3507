"""Go through a whole data set, in parallel."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from centermask.datasets.annotations import NEEDED, check_kind_of_ids, invalid_fields, read_json
from centermask.datasets.checking import findings as kinds
from centermask.datasets.checking.assignment import Assignment
from centermask.datasets.checking.findings import Finding, Level, level_of
from centermask.datasets.checking.images import Looked, look
from centermask.datasets.checking.objects import examine
from centermask.datasets.images import MAX_PIXELS
from centermask.utils.errors import InputError, RunError

SIZES = ('small', 'medium', 'large')
# Sides of the squares between them, in pixels of the original image, as COCO has them.
SIZE_LIMITS = (32, 96)
# Images that are worth starting a process for.
LEAST_SHARE = 16
# Difference of two aspect ratios that rounding explains.
SAME_SHAPE = 0.01
# What an entry may lack: an image says its size itself, the rest is computed.
UNKNOWN_SIZE = (1, 1)
FOUND_OUT = {'width': 1, 'height': 1, 'area': None, 'iscrowd': None}


@dataclass
class Check:
    """What was found.

    Attributes:
        ann_file, images: what was read.
        content: of the annotation file, as it is.
        shown: entries of the images that could be looked at, by their id.
        categories: by the id of each category that of the first of its name.
        objects: how many objects (crowds not among them) training takes, by class and size.
        images_with: on how many images each class is.
        empty_images: how many images have no object.
        crowds: how many there are.
        levels: how many objects are pooled from each level, in the order of ``strides``.
        strides: of these levels.
        findings: everything wrong.
        sizes: of images whose size is another than stated: what it really is.
        mended: entries of the objects that need mending, by their place in the file; None to be dropped.
        sampled: how many images were looked at, where not all.
    """

    ann_file: Path
    images: Path
    content: dict
    shown: dict[Any, dict] = field(default_factory=dict)
    categories: dict[Any, Any] = field(default_factory=dict)
    objects: dict[str, Counter] = field(default_factory=dict)
    images_with: Counter = field(default_factory=Counter)
    empty_images: int = 0
    crowds: int = 0
    levels: Counter = field(default_factory=Counter)
    strides: tuple[int, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    sizes: dict[Any, tuple[int, int]] = field(default_factory=dict)
    mended: dict[int, dict | None] = field(default_factory=dict)
    sampled: int | None = None

    def by_kind(self, level: Level) -> dict[str, list[Finding]]:
        """Findings of a level, the most frequent kind first."""
        grouped: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            if level_of(finding.kind) == level:
                grouped[finding.kind].append(finding)
        return dict(sorted(grouped.items(), key=lambda item: -len(item[1])))

    @property
    def trains(self) -> bool:
        """Whether a training neither fails nor loses an object."""
        return all(level_of(finding.kind) == Level.NOTE for finding in self.findings)


class _Task(NamedTuple):
    """One image: its entry, its path, and its objects with their places in the file."""

    image: dict
    path: Path
    annotations: list[tuple[int, dict]]


@dataclass
class Mended:
    """How an image's entries would be right: those of objects, and the image's size where that is wrong."""

    objects: dict[int, dict | None]
    size: tuple[int, int] | None


@dataclass
class _Result:
    """What one image gave; ``objects`` are those trained on, as category id and size, ``levels`` of their masks."""

    findings: list[Finding]
    mended: Mended
    digest: bytes
    objects: list[tuple[Hashable, str]] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    crowds: int = 0


def check_dataset(
    ann_file: Path, images: Path, assignment: Assignment | None, decode: bool = True, sample: int | None = None
) -> Check:
    """Read annotations, and images where ``decode``, and look for everything that is wrong.

    Args:
        ann_file: in COCO's format.
        images: folder that ``file_name`` starts from.
        assignment: what tells which objects no location learns, levels and the most pixels; None leaves these out.
        decode: whether images are read; else only whether they are there.
        sample: look at this many images at most, spread over the file.

    Raises:
        InputError: the file can't be read, lacks one of its lists or has ids of two kinds, or ``images`` is no folder.
        RunError: a process was killed, as happens where memory ends.
    """
    content = read_json(str(ann_file))
    if not images.is_dir():
        raise InputError(f'The folder of images {images} does not exist: name the one that "file_name" starts from.')
    for key in NEEDED:
        if not isinstance(content.get(key), list):
            raise InputError(f'The annotation file {ann_file} is not in COCO format: it has no list "{key}".')
    check = Check(ann_file, images, content)
    names = _check_categories(check)
    tasks = _tasks(check, names)
    if sample and len(tasks) > sample:
        tasks = [tasks[i * len(tasks) // sample] for i in range(sample)]
        check.sampled = sample
    check.objects = {name: Counter() for name in names.values()}
    check.strides = tuple(assignment.strides) if assignment else ()
    originals: dict[bytes, dict] = {}
    for task, result in zip(tasks, _results(tasks, assignment, decode), strict=True):
        _add(check, task, result, names, originals)
    if not check.sampled and not any(sizes.total() for sizes in check.objects.values()):
        lacks = 'categories' if not names else 'images' if not tasks else 'usable objects but crowds'
        check.findings.append(Finding(kinds.NOTHING, f'{ann_file.name} has no {lacks}'))
    return check


def _check_categories(check: Check) -> dict[Any, str]:
    """Names by id."""
    names: dict[Any, str] = {}
    first: dict[str, Any] = {}
    for _, entry in _entries(check, 'categories'):
        name = entry['name']
        if name in first:
            check.findings.append(Finding(kinds.NAMES, f'"{name}"'))
        names[entry['id']] = name
        check.categories[entry['id']] = first.setdefault(name, entry['id'])
    return names


def _entries(check: Check, key: str) -> Iterator[tuple[int, dict]]:
    """Places and entries of a list that have what they need, or could be completed, and an id of their own."""
    entries = check.content[key]
    wrong = dict(invalid_fields(entries, key))
    ids = [entry['id'] for i, entry in enumerate(entries) if i not in wrong]
    check_kind_of_ids(ids, key, str(check.ann_file))
    unused = max((number for number in ids if isinstance(number, int)), default=0) + 1
    seen: set = set()
    for i, entry in enumerate(entries):
        if i in wrong:
            check.findings.append(Finding(kinds.FIELDS, f'"{wrong[i]}" of entry {i} of "{key}"'))
            entry = _completed(entry, key)
        if entry is not None and entry['id'] in seen:
            check.findings.append(Finding(kinds.IDS, f'{entry["id"]} of entry {i} of "{key}"'))
            entry = {**entry, 'id': unused} if key == 'annotations' else None
            unused += 1
        if key == 'annotations' and entry is not entries[i]:
            check.mended[i] = entry
        if entry is not None:
            seen.add(entry['id'])
            yield i, entry


def _completed(entry: Any, key: str) -> dict | None:
    """An entry with what can be found out elsewhere put aside, None if it lacks more."""
    entry = dict(entry) if isinstance(entry, dict) else {}
    while wrong := next(invalid_fields([entry], key), None):
        if wrong[1] not in FOUND_OUT:
            return None
        entry[wrong[1]] = FOUND_OUT[wrong[1]]
    return entry


def _tasks(check: Check, names: dict[Any, str]) -> list[_Task]:
    tasks = {image['id']: _Task(image, check.images / image['file_name'], []) for _, image in _entries(check, 'images')}
    check.shown = {image_id: task.image for image_id, task in tasks.items()}
    for place, annotation in _entries(check, 'annotations'):
        image = annotation['image_id']
        if image not in tasks:
            kind = kinds.UNKNOWN_IMAGE
        elif annotation['category_id'] not in names:
            kind = kinds.UNKNOWN_CATEGORY
        else:
            tasks[image].annotations.append((place, annotation))
            continue
        check.findings.append(Finding(kind, f'object {annotation["id"]}', image if image in tasks else None, place))
        check.mended[place] = None
    return list(tasks.values())


_work: tuple[list[_Task], Assignment | None, bool]


def _begin(*work: Any) -> None:
    """Give a process its work: inherited by the fork, so that nothing is sent."""
    global _work
    _work = work  # type: ignore[assignment]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the program, and it ends them
    torch.set_num_threads(1)


def _do(index: int) -> _Result:
    tasks, assignment, decode = _work
    return _look_at(tasks[index], assignment, decode)


def _results(tasks: list[_Task], assignment: Assignment | None, decode: bool) -> Iterator[_Result]:
    """Results in the order of the tasks, with progress and the time left."""
    processes = min(len(os.sched_getaffinity(0)), len(tasks) // LEAST_SHARE)
    progress = tqdm(total=len(tasks), desc='Checking', unit='image', disable=None)
    with progress:
        if processes < 2:
            for task in tasks:
                yield _look_at(task, assignment, decode)
                progress.update()
            return
        fork = multiprocessing.get_context('fork')
        with ProcessPoolExecutor(processes, fork, _begin, (tasks, assignment, decode)) as pool:
            try:
                for result in pool.map(_do, range(len(tasks)), chunksize=4):
                    yield result
                    progress.update()
            except BrokenProcessPool as error:
                raise RunError(
                    f'A process that read images was killed after {progress.n} of {len(tasks)}: an image may be too '
                    'large for the memory, free some or take the image out.'
                ) from error


def _look_at(task: _Task, assignment: Assignment | None, decode: bool) -> _Result:
    image_id, name = task.image['id'], task.image['file_name']
    stated = int(task.image['width']), int(task.image['height'])
    unread = Looked([] if task.path.is_file() else [kinds.MISSING], stated, b'')
    max_pixels = assignment.max_pixels if assignment else MAX_PIXELS
    looked = look(task.path, max_pixels) if decode else unread
    findings = [Finding(kind, name, image_id) for kind in looked.found]
    size, mended = stated, Mended({}, None)
    if looked.size and looked.size != stated:
        text = f'{name} is {looked.size[0]}x{looked.size[1]}, not {stated[0]}x{stated[1]}'
        findings.append(Finding(kinds.SIZE, text, image_id))
        if _fits(task.annotations, stated, looked.size):
            size = mended.size = looked.size
    result = _Result(findings, mended, looked.digest)
    seen: set[str] = set()
    boxes: list[tuple[int, str, list[float]]] = []
    for place, annotation in task.annotations:
        what = f'object {annotation["id"]} on {name}'
        copy = json.dumps([annotation.get(key) for key in ('category_id', 'bbox', 'segmentation', 'iscrowd')])
        if copy in seen:
            findings.append(Finding(kinds.DUPLICATE, what, image_id, place))
            mended.objects[place] = None
            continue
        seen.add(copy)
        examined = examine(annotation, *size)
        findings += [Finding(kind, what, image_id, place) for kind in examined.found]
        if examined.mended != annotation:
            mended.objects[place] = examined.mended
        if examined.trained and annotation.get('iscrowd'):
            result.crowds += 1
        elif examined.trained:
            x, y, w, h = annotation['bbox']
            boxes.append((place, what, [x, y, x + w, y + h]))
            area = (examined.mended or annotation).get('area') or w * h
            result.objects.append((annotation['category_id'], SIZES[sum(area >= side**2 for side in SIZE_LIMITS)]))
    if assignment and boxes:
        corners = np.array([box for _, _, box in boxes], dtype=np.float64)
        among, alone = assignment.learned(corners, *size)
        for i in np.flatnonzero(~among):
            place, what, _ = boxes[i]
            findings.append(Finding(kinds.COVERED if alone[i] else kinds.NO_LOCATION, what, image_id, place))
        result.levels.extend(assignment.levels(corners, *size).tolist())
    return result


def _fits(annotations: list[tuple[int, dict]], stated: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether objects may be of an image of another size than stated: all lie in it, and it isn't only enlarged."""
    ratios = [real / said for real, said in zip(size, stated, strict=True)]
    if stated != UNKNOWN_SIZE and abs(ratios[0] / ratios[1] - 1) < SAME_SHAPE:
        return False
    return all(
        box[0] + box[2] <= size[0] + 1 and box[1] + box[3] <= size[1] + 1
        for box in (annotation['bbox'] for _, annotation in annotations)
    )


def _add(check: Check, task: _Task, result: _Result, names: dict[Any, str], originals: dict[bytes, dict]) -> None:
    name = task.image['file_name']
    check.findings += result.findings
    if result.digest:
        original = originals.setdefault(result.digest, task.image)
        if original['id'] != task.image['id']:
            check.findings.append(Finding(kinds.COPIES, f'{name} ({original["file_name"]})', task.image['id']))
    check.mended.update(result.mended.objects)
    if result.mended.size:
        check.sizes[task.image['id']] = result.mended.size
    for category, size in result.objects:
        check.objects[names[category]][size] += 1
    check.images_with.update({names[category] for category, _ in result.objects})
    check.empty_images += not result.objects
    check.crowds += result.crowds
    check.levels.update(result.levels)
