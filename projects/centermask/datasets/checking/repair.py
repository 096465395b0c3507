"""Write a repaired copy of an annotation file."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from centermask.datasets.checking import findings as kinds
from centermask.datasets.checking.check import Check
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError, RunError

OF_FILE = {kinds.FIELDS, kinds.IDS, kinds.NAMES}


def write_repaired(check: Check, out: Path) -> tuple[list[str], list[str]]:
    """Write the annotations without what can't be used and with everything else mended.

    Images that are missing, damaged, refused or of a size that their objects don't fit are left out with their objects.

    Args:
        check: of the whole data set.
        out: file to write; its images are those of the old one.

    Returns:
        Each change, and what is left that loses objects, as lines.

    Raises:
        InputError: ``out`` is the file that was checked.
        RunError: no object would be left to train on, or it can't be written.
    """
    if out.exists() and out.samefile(check.ann_file):
        raise InputError(f'--fix {out} is the file that is checked: name another one, the old one stays as it is.')
    why: dict[int, list[str]] = defaultdict(list)
    dropped: dict = {}
    for finding in check.findings:
        if finding.annotation is not None and finding.kind not in kinds.BEYOND_REPAIR:
            why[finding.annotation].append(finding.kind)
        if finding.kind in kinds.UNUSABLE or (finding.kind == kinds.SIZE and finding.image not in check.sizes):
            dropped[finding.image] = finding
    changes = [f'left out with its objects: {f.what}, one of the {f.kind}' for f in dropped.values()]
    changes += [f'corrected or left out: {f.what}, one of the {f.kind}' for f in check.findings if f.kind in OF_FILE]

    images = []
    for image_id, image in check.shown.items():
        if image_id in dropped:
            continue
        if image_id in check.sizes:
            width, height = check.sizes[image_id]
            changes.append(f'size set to {width}x{height}: {image["file_name"]}')
            image = {**image, 'width': width, 'height': height}
        images.append(image)
    kept = {image['id'] for image in images}
    annotations = []
    for place, old in enumerate(check.content['annotations']):
        entry = check.mended.get(place, old)
        if place in check.mended and why[place]:
            did = 'left out' if entry is None else 'mended'
            changes.append(f'{did}: object {old["id"]}, {", ".join(dict.fromkeys(why[place]))}')
        if entry is not None and entry['image_id'] in kept:
            annotations.append({**entry, 'category_id': check.categories[entry['category_id']]})
    if all(annotation.get('iscrowd') for annotation in annotations):
        raise RunError(f'--fix {out} is not written: no object would be left to train on, see above what is wrong.')
    categories = {entry['id']: entry for entry in check.content['categories'] if _is_kept(entry, check.categories)}
    content = {**check.content, 'images': images, 'annotations': annotations, 'categories': [*categories.values()]}
    atomic_write_text(out, json.dumps(content))
    left = [f'{f.what}: {f.kind}' for f in check.findings if f.kind in kinds.BEYOND_REPAIR and f.image in kept]
    return changes, left


def _is_kept(entry: object, categories: dict) -> bool:
    """Whether a category is the first of its name."""
    return isinstance(entry, dict) and 'id' in entry and categories.get(entry['id'], ...) == entry['id']
