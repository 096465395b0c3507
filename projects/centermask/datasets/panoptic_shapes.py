"""Synthetic panoptic data: the shapes of :mod:`centermask.datasets.shapes` on three kinds of textured ground."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
from mmdet.evaluation.functional import INSTANCE_OFFSET
from numpy.random import Generator
from tqdm import tqdm

from centermask.datasets.coco_panoptic import categories_of, write_panoptic, write_panoptic_json
from centermask.datasets.shapes import (
    CLASSES,
    SIZE,
    Shape,
    Size,
    add_image,
    annotate,
    coverage,
    paint,
    place_shapes,
    read_info,
    start_coco,
)
from centermask.utils.atomic_io import atomic_folder

# Colours in RGB that an image's shade of the ground is drawn around.
GROUNDS = {'grass': (75, 140, 60), 'water': (60, 110, 185), 'brick': (165, 85, 65)}
STUFF = tuple(GROUNDS)
SHADE, SWING = 15, 25
VOID = len(CLASSES) + len(STUFF)
# Width of the line without a label where two grounds meet, in pixels.
SEAM = 3


def _grass(rng: Generator, size: Size) -> np.ndarray:
    """Return blades of one to two pixels, (H, W) in [-1, 1]."""
    coarse = rng.standard_normal((math.ceil(size[0] / 2), size[1]), dtype=np.float32)
    return np.clip(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR), -1, 1)


def _water(rng: Generator, size: Size) -> np.ndarray:
    """Return waves that run across the image, (H, W) in [-1, 1]."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    length, slope, phase = rng.uniform(8, 13), rng.uniform(-0.2, 0.2), rng.uniform(0, 2 * math.pi)
    return np.sin((y + slope * x + 2 * np.sin(x / 9 + phase)) * (2 * math.pi / length))


def _brick(rng: Generator, size: Size) -> np.ndarray:
    """Return bricks of 7 x 15 pixels with joints of one pixel, every other row shifted by half, (H, W) in [-1, 1]."""
    y, x = np.mgrid[: size[0], : size[1]] + rng.integers(16, size=2)[:, None, None]
    row = y // 8
    joints = (y % 8 == 0) | ((x + 8 * (row % 2)) % 16 == 0)
    return np.where(joints, 1.0, -0.6 + 0.4 * rng.random()).astype(np.float32)


TEXTURES = {'grass': _grass, 'water': _water, 'brick': _brick}


def draw_ground(rng: Generator, size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one to three kinds of ground side by side, with wavy borders.

    Returns:
        The kind of each pixel (H, W), an index into ``STUFF``, -1 on the seams; samples of the colours (N, 3); and the
        pixels (H, W, 3).
    """
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    if rng.random() < 0.5:
        y, x = x, y
    order = rng.permutation(len(STUFF))[: rng.integers(1, len(STUFF) + 1)]
    region = np.zeros(size, np.int64)
    for border in range(1, len(order)):
        middle = max(size) * (border + rng.uniform(-0.2, 0.2)) / len(order)
        amplitude, length, phase = rng.uniform(2, 8), rng.uniform(40, 90), rng.uniform(0, 2 * math.pi)
        region += y > middle + amplitude * np.sin(x * (2 * math.pi / length) + phase)
    kinds = order[region]
    pixels, colours = np.zeros((*size, 3), np.float32), []
    for kind in order:
        base = np.array(GROUNDS[STUFF[kind]]) + rng.uniform(-SHADE, SHADE, 3)
        texture = base + SWING * TEXTURES[STUFF[kind]](rng, size)[..., None]
        pixels[kinds == kind] = texture[kinds == kind]
        colours.append(base + SWING * np.linspace(-1, 1, 3)[:, None])
    square = np.ones((SEAM, SEAM), np.uint8)
    seam = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_GRADIENT, square) > 0
    return np.where(seam, -1, kinds), np.concatenate(colours), pixels


def draw_panoptic_image(seed: int, index: int, size: Size = SIZE) -> tuple[np.ndarray, list[Shape], np.ndarray]:
    """Draw one image.

    Args:
        seed, index: Non-negative numbers that choose the image.
        size: Height and width in pixels, at least 80.

    Returns:
        The image (H, W, 3) in RGB, uint8; its shapes from back to front; and the panoptic map (H, W) in MMDetection's
        encoding, in which the i-th shape is instance i + 1.
    """
    rng = np.random.default_rng((seed, index))
    kinds, colours, ground = draw_ground(rng, size)
    shapes = place_shapes(rng, colours, size)
    panoptic = np.where(kinds < 0, VOID, len(CLASSES) + kinds)
    for number, shape in enumerate(shapes, start=1):
        panoptic[coverage(shape.outline, size) >= 0.5] = shape.label + INSTANCE_OFFSET * number
    return paint(ground, shapes), shapes, panoptic


def make_panoptic_dataset(out: Path, images: int, seed: int, size: Size = SIZE) -> dict:
    """Write ``images/*.jpg``, ``annotations.json``, ``panoptic.json`` and ``panoptic/*.png`` into ``out``.

    The folder appears when it is complete. One that this function wrote earlier is replaced.

    Args:
        out: Folder to write.
        images: Number of images, at least 1.
        seed: Non-negative; another seed gives other images.
        size: As for :func:`draw_panoptic_image`.

    Returns:
        The content of ``annotations.json``.

    Raises:
        InputError: The folder can't be written or holds something else.
    """
    coco, categories, annotations = start_coco(images, seed, size), categories_of(CLASSES, STUFF), []
    coco['info']['stuff'] = list(STUFF)
    with atomic_folder(out, lambda folder: bool(read_info(folder))) as folder:
        for index in tqdm(range(images), desc=f'Drawing {folder.name}', unit='image', disable=None):
            pixels, shapes, panoptic = draw_panoptic_image(seed, index, size)
            image = add_image(folder, coco, pixels, [annotate(shape) for shape in shapes])
            entry = write_panoptic(panoptic, image, categories, folder / 'panoptic')
            for value, segment in zip(np.unique(panoptic[panoptic != VOID]), entry['segments_info'], strict=True):
                segment['iscrowd'] = int(value >= INSTANCE_OFFSET and shapes[value // INSTANCE_OFFSET - 1].crowd)
            annotations.append(entry)
        (folder / 'annotations.json').write_text(json.dumps(coco))
        write_panoptic_json(folder / 'panoptic.json', coco['images'], annotations, categories)
    return coco
