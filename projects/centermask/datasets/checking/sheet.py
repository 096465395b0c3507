"""A sheet of pictures of the worst."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_utils

from centermask.datasets.annotations import usable_segmentation
from centermask.datasets.checking.check import Check
from centermask.datasets.checking.findings import UNUSABLE, Finding, Level, level_of
from centermask.report.drawing import Shown, draw_objects, read_image
from centermask.utils.atomic_io import atomic_write

SIDE = 420
COLUMNS = 4
PICTURES = 24
GAP = 8
LARGEST = 4096
WEIGHTS = {Level.FAILS: 100, Level.LOSES: 10, Level.NOTE: 1}
COLOURS = {Level.FAILS: (200, 30, 30), Level.LOSES: (214, 90, 20), Level.NOTE: (200, 160, 0)}
UNREMARKABLE = (90, 130, 170)


def draw_worst(check: Check, path: Path) -> int:
    """Draw the images with the gravest findings, objects with findings in red or orange, into one file.

    Args:
        check: what to draw of.
        path: file to write, its ending tells the format.

    Returns:
        How many images it shows.

    Raises:
        RunError: the file can't be written.
    """
    grouped: dict = defaultdict(list)
    for finding in check.findings:
        if finding.image in check.shown:
            grouped[finding.image].append(finding)
    worst = sorted(grouped, key=lambda image: -sum(WEIGHTS[level_of(f.kind)] for f in grouped[image]))[:PICTURES]
    rows = max(1, -(-len(worst) // COLUMNS))
    sheet = np.full((rows * (SIDE + GAP), COLUMNS * (SIDE + GAP), 3), 255, np.uint8)
    for i, image_id in enumerate(worst):
        panel = _panel(check, check.shown[image_id], grouped[image_id])[:SIDE, :SIDE]
        top, left = i // COLUMNS * (SIDE + GAP), i % COLUMNS * (SIDE + GAP)
        sheet[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    atomic_write(path, lambda aside: cv2.imwrite(str(aside), sheet[..., ::-1]))
    return len(worst)


def _panel(check: Check, image: dict, findings: list[Finding]) -> np.ndarray:
    """A picture, at most ``SIDE`` pixels wide and high with its title."""
    path = check.images / image['file_name']
    if any(finding.kind in UNUSABLE for finding in findings):  # gray, of the size that the file says
        pixels = np.full((min(int(image['height']), LARGEST), min(int(image['width']), LARGEST), 3), 225, np.uint8)
    else:
        pixels = read_image(path)
    height, width = pixels.shape[:2]
    of_object = {f.annotation: f for f in findings if f.annotation is not None}
    shown = []
    for place, annotation in enumerate(check.content['annotations']):
        if place in of_object or (isinstance(annotation, dict) and annotation.get('image_id') == image['id']):
            shown.append(_shown(annotation, of_object.get(place), height, width))
    title = '; '.join([image['file_name'], *dict.fromkeys(f.kind for f in findings if f.annotation is None)])
    scale = min(SIDE / width, (SIDE - 26) / height)
    return draw_objects(pixels, [one for one in shown if one], scale, title)


def _shown(annotation: dict, finding: Finding | None, height: int, width: int) -> Shown | None:
    try:
        x, y, w, h = (float(value) for value in annotation['bbox'])
        segmentation, _ = usable_segmentation(annotation.get('segmentation'), height, width)
    except (KeyError, TypeError, ValueError):
        return None
    if not segmentation:
        # The box stands for an object without an outline; one too small to see is shown larger.
        w, h = max(w, 4), max(h, 4)
        segmentation = [np.array([x, y, x + w, y, x + w, y + h, x, y + h])]
    encoded = segmentation if isinstance(segmentation, dict) else None
    mask = mask_utils.decode(encoded or mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width)))
    colour = COLOURS[level_of(finding.kind)] if finding else UNREMARKABLE
    return Shown(mask, (x, y, w, h), colour, f'{annotation.get("id")}: {finding.kind}' if finding else '')
