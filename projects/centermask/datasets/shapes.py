"""Synthetic data: textured shapes that overlap on textured backgrounds, annotated in COCO format.

The demo trains on it; tests, benchmarks and exports use it where no images are given. An image depends on its seed and
index alone, so the first images stay the same however many are drawn. Coordinates are pixels with the origin at the
outer corner of the first pixel, as in COCO's polygons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_utils
import shapely
from numpy.random import Generator
from shapely import Polygon
from shapely.geometry.base import BaseGeometry
from tqdm import tqdm

from centermask.structures.rle_masks import run_lengths
from centermask.utils.atomic_io import atomic_folder

Size = tuple[int, int]

# The demo's image size (H, W), and the range of the circumscribed circle's radius, in pixels.
SIZE: Size = (160, 160)
RADIUS = (9.0, 36.0)
CROWD_RADIUS = (4.0, 7.0)
MAX_OBJECTS = 5
EMPTY_RATIO = 0.05
CROWD_RATIO = 0.05

# An object of which less is visible is hard to recognise, so such a placement is drawn again.
MIN_VISIBLE_RATIO = 1 / 3
MIN_VISIBLE_AREA = 60.0
# Least distance in RGB between a colour of an object and a colour behind it.
MIN_CONTRAST = 70.0
# Smaller pieces of a visible outline are left out of its annotation, in pixels.
MIN_PIECE_AREA = 2.0

SUPERSAMPLING = 4
DESCRIPTION = 'Textured shapes'


def _ring(points: int, *radii: float) -> np.ndarray:
    """Return corners (N, 2) at equal angles whose radii repeat ``radii``."""
    angles = np.arange(points) * (2 * math.pi / points)
    radius = np.resize(np.array(radii), points)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _cross() -> np.ndarray:
    long, short = math.sqrt(0.9), math.sqrt(0.1)
    arm = np.array([[long, -short], [long, short], [short, short]])
    quarter_turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter_turn, i) for i in range(4)])


# Outlines (N, 2) within the unit circle, in the order of the category ids, which start at 1.
OUTLINES = {
    'circle': _ring(48, 1.0),
    'triangle': _ring(3, 1.0),
    'square': _ring(4, 1.0),
    'star': _ring(10, 1.0, 0.42),
    'cross': _cross(),
}
CLASSES = tuple(OUTLINES)


@dataclass
class Shape:
    """One object, or one crowd of small ones."""

    label: int  # index into CLASSES
    outline: BaseGeometry
    visible: BaseGeometry  # what no other shape covers of the outline
    colours: np.ndarray  # RGB samples (5, 3) of the texture
    texture: np.ndarray  # RGB pixels (H, W, 3), of which the outline shows a part
    crowd: bool = False


def _pattern(rng: Generator, size: Size) -> np.ndarray:
    """Return one of five kinds of texture, (H, W) in [-1, 1]."""
    height, width = size
    angle, phase = rng.uniform(0, 2 * math.pi, 2)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    across = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    along = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
    kind = rng.integers(5)
    if kind == 0:  # gradient
        return (across - across.min()) * (2 / np.ptp(across)) - 1
    if kind in (1, 2):  # stripes, checks
        frequency = np.float32(2 * math.pi / rng.uniform(7, 24))
        # Clipped sines have sharp but antialiased edges.
        stripes = np.clip(3 * np.sin(frequency * across + np.float32(phase)), -1, 1)
        return stripes if kind == 1 else stripes * np.clip(3 * np.sin(frequency * along), -1, 1)
    cell = rng.uniform(1, 3) if kind == 3 else rng.uniform(8, 24)  # noise, blobs
    coarse = rng.standard_normal((math.ceil(height / cell), math.ceil(width / cell)), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), -1, 1)


def _texture(rng: Generator, behind: list[np.ndarray], size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return colour samples (5, 3) and pixels (H, W, 3) of a texture that contrasts with the samples behind it."""
    candidates = 32
    base = rng.uniform(30, 225, (candidates, 3))
    direction = rng.standard_normal((candidates, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    swing = direction * rng.uniform(10, 45, (candidates, 1))
    colours = base[:, None] + np.linspace(-1, 1, 5)[:, None] * swing[:, None]
    chosen = 0
    if behind:
        contrast = np.linalg.norm(colours[:, :, None] - np.concatenate(behind), axis=-1).min(axis=(1, 2))
        enough = contrast >= MIN_CONTRAST
        chosen = int(enough.argmax() if enough.any() else contrast.argmax())
    pixels = _pattern(rng, size)[..., None] * swing[chosen].astype(np.float32) + base[chosen].astype(np.float32)
    return colours[chosen], pixels


def _outline(rng: Generator, label: int, radius: float, centre: np.ndarray) -> Polygon:
    angle = rng.uniform(0, 2 * math.pi)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return Polygon(OUTLINES[CLASSES[label]] @ rotation * radius + centre)


def _crowd(rng: Generator, background: np.ndarray, size: Size) -> Shape:
    """Draw a cluster of small shapes of one class."""
    label = int(rng.integers(len(CLASSES)))
    members = int(rng.integers(8, 15))
    corner = np.array(size[::-1])
    middle = rng.uniform(40, corner - 40)
    radii = rng.uniform(*CROWD_RADIUS, members)
    centres = np.clip(middle + rng.normal(0, 14, (members, 2)), CROWD_RADIUS[1], corner - CROWD_RADIUS[1])
    outlines = [_outline(rng, label, radius, centre) for radius, centre in zip(radii, centres, strict=True)]
    outline = shapely.union_all(outlines)
    return Shape(label, outline, outline, *_texture(rng, [background], size), crowd=True)


def _add_on_top(
    rng: Generator, shapes: list[Shape], background: np.ndarray, size: Size, radii: tuple[float, float]
) -> None:
    """Add an object that leaves enough of those below visible; add none if 20 placements fail."""
    label = int(rng.integers(len(CLASSES)))
    for _ in range(20):
        radius = rng.uniform(*radii)
        outline = _outline(rng, label, radius, rng.uniform(radius, np.array(size[::-1]) - radius))
        remains = [shape.visible.difference(outline) for shape in shapes]
        least = [max(MIN_VISIBLE_AREA, MIN_VISIBLE_RATIO * shape.outline.area) for shape in shapes]
        if all(rest.area >= area for rest, area in zip(remains, least, strict=True)):
            behind = [background, *(shape.colours for shape in shapes if shape.outline.intersects(outline))]
            for shape, rest in zip(shapes, remains, strict=True):
                shape.visible = rest
            shapes.append(Shape(label, outline, outline, *_texture(rng, behind, size)))
            return


def make_scene(
    seed: int, index: int, size: Size = SIZE, radii: tuple[float, float] = RADIUS
) -> tuple[np.ndarray, list[Shape]]:
    """Return the background (H, W, 3) of an image and the shapes on it, from back to front; see :func:`draw_image`."""
    rng = np.random.default_rng((seed, index))
    colours, background = _texture(rng, [], size)
    return background, place_shapes(rng, colours, size, radii)


def place_shapes(rng: Generator, colours: np.ndarray, size: Size, radii: tuple[float, float] = RADIUS) -> list[Shape]:
    """Return the shapes of an image, from back to front, in contrast with a background's colours (N, 3)."""
    shapes: list[Shape] = []
    kind = rng.random()
    if kind >= EMPTY_RATIO:
        if kind < EMPTY_RATIO + CROWD_RATIO:
            shapes.append(_crowd(rng, colours, size))
        for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
            _add_on_top(rng, shapes, colours, size, radii)
    return shapes


def solid_pieces(shape: BaseGeometry) -> list[Polygon]:
    """Return polygons without holes that together cover a shape, since COCO's polygons can't express holes."""
    pieces = []
    for part in getattr(shape, 'geoms', [shape]):
        if isinstance(part, Polygon) and part.interiors:
            x = part.interiors[0].centroid.x
            left, bottom, right, top = part.bounds
            for half in (shapely.box(left, bottom, x, top), shapely.box(x, bottom, right, top)):
                pieces += solid_pieces(part.intersection(half))
        elif isinstance(part, Polygon) and not part.is_empty:
            pieces.append(part)
    return pieces


def coverage(shape: BaseGeometry, size: Size) -> np.ndarray:
    """Return the part of each pixel that lies inside an outline, (H, W) in [0, 1]."""
    height, width = size
    canvas = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    # fillPoly also fills the pixels under the outline, half a pixel too much all round, and has the origin at
    # the centre of the first pixel. It takes sixteenths of a pixel.
    for polygon in solid_pieces(shape.buffer(-0.5 / SUPERSAMPLING, join_style='mitre')):
        corners = np.array(polygon.exterior.coords) * SUPERSAMPLING - 0.5
        cv2.fillPoly(canvas, [np.round(corners * 16).astype(np.int32)], 255, shift=4)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def paint(background: np.ndarray, shapes: Sequence[Shape]) -> np.ndarray:
    """Draw shapes from back to front: (H, W, 3) RGB, uint8."""
    canvas = background.copy()
    for shape in shapes:
        canvas += coverage(shape.outline, canvas.shape[:2])[..., None] * (shape.texture - canvas)
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8)


def annotate(shape: Shape) -> dict:
    """Return the COCO annotation of a shape's visible part, without ids."""
    if shape.crowd:
        mask = coverage(shape.visible, shape.texture.shape[:2]) >= 0.5
        encoded = mask_utils.encode(np.asfortranarray(mask))
        return dict(
            category_id=shape.label + 1,
            segmentation=dict(size=list(mask.shape), counts=run_lengths(encoded)),
            area=int(mask.sum()),
            bbox=[int(value) for value in mask_utils.toBbox(encoded)],
            iscrowd=1,
        )
    pieces = [piece for piece in solid_pieces(shape.visible) if piece.area >= MIN_PIECE_AREA]
    # Box and area are those of the rounded polygons in the file.
    corners = [np.round(np.array(piece.exterior.coords)[:-1], 2) for piece in pieces]
    low = np.min([piece.min(axis=0) for piece in corners], axis=0)
    high = np.max([piece.max(axis=0) for piece in corners], axis=0)
    return dict(
        category_id=shape.label + 1,
        segmentation=[piece.ravel().tolist() for piece in corners],
        area=round(sum(Polygon(piece).area for piece in corners), 2),
        bbox=np.round(np.concatenate([low, high - low]), 2).tolist(),
        iscrowd=0,
    )


def draw_image(
    seed: int, index: int, size: Size = SIZE, radii: tuple[float, float] = RADIUS
) -> tuple[np.ndarray, list[dict]]:
    """Draw one image.

    Args:
        seed, index: Non-negative numbers that choose the image.
        size: Height and width in pixels, at least 80 and twice the greatest radius.
        radii: Least and greatest radius of an object's circumscribed circle, in pixels.

    Returns:
        The image (H, W, 3) in RGB, uint8, and the COCO annotations of its objects without ids.
    """
    background, shapes = make_scene(seed, index, size, radii)
    return paint(background, shapes), [annotate(shape) for shape in shapes]


def read_info(folder: Path) -> dict:
    """Return the ``info`` of a folder that :func:`make_dataset` wrote, {} for another."""
    try:
        info = json.loads((folder / 'annotations.json').read_text())['info']
        return info if info['description'] == DESCRIPTION else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def dataset_exists(out: Path, images: int, seed: int) -> bool:
    """Return whether ``make_dataset(out, images, seed)`` has written this folder before."""
    return read_info(out) == dict(description=DESCRIPTION, seed=seed, images=images, size=list(SIZE))


def make_dataset(
    out: Path,
    images: int,
    seed: int,
    size: Size = SIZE,
    radii: tuple[float, float] = RADIUS,
    classes: Sequence[str] = CLASSES,
) -> dict:
    """Write ``images/*.jpg`` and ``annotations.json`` (COCO instances with polygons) into ``out``.

    The folder appears when it is complete. One that this function wrote earlier is replaced.

    Args:
        out: Folder to write.
        images: Number of images, at least 1.
        seed: Non-negative; another seed gives other images.
        size, radii: As for :func:`draw_image`.
        classes: Names of the categories, at least five; the shapes are of the first five.

    Returns:
        The content of ``annotations.json``.

    Raises:
        InputError: The folder can't be written or holds something else.
    """
    coco = start_coco(images, seed, size, classes)
    with atomic_folder(out, lambda folder: bool(read_info(folder))) as folder:
        for index in tqdm(range(images), desc=f'Drawing {folder.name}', unit='image', disable=None):
            add_image(folder, coco, *draw_image(seed, index, size, radii))
        (folder / 'annotations.json').write_text(json.dumps(coco))
    return coco


def start_coco(images: int, seed: int, size: Size, classes: Sequence[str] = CLASSES) -> dict[str, Any]:
    """Return the content of an ``annotations.json`` without images; see :func:`make_dataset`."""
    return dict(
        info=dict(description=DESCRIPTION, seed=seed, images=images, size=list(size)),
        images=[],
        annotations=[],
        categories=[dict(id=i, name=name, supercategory='shape') for i, name in enumerate(classes, 1)],
    )


def add_image(folder: Path, coco: dict[str, Any], pixels: np.ndarray, annotations: Sequence[dict]) -> dict:
    """Write an image (H, W, 3) into ``folder/images``, add it and its objects to a file's content, return its entry."""
    number = len(coco['images']) + 1
    entry = dict(id=number, file_name=f'{number - 1:06d}.jpg', width=pixels.shape[1], height=pixels.shape[0])
    # Halved chroma would smear the edges between colours.
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode('.jpg', pixels[..., ::-1], quality)
    (folder / 'images').mkdir(exist_ok=True)
    (folder / 'images' / entry['file_name']).write_bytes(data.tobytes())
    coco['images'].append(entry)
    for annotation in annotations:
        coco['annotations'].append(dict(id=len(coco['annotations']) + 1, image_id=number, **annotation))
    return entry
