"""The demo's data set: textured shapes that overlap on textured backgrounds, annotated in COCO format.

Everything is drawn from ``(seed, index)`` alone, so the first pictures stay the same however many are asked for.
Coordinates are pixels with the origin at the outer corner of the first pixel, as in COCO's polygons.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import shapely
from numpy.random import Generator
from shapely import Polygon
from shapely.geometry.base import BaseGeometry
from tqdm import tqdm

from centermask.utils.atomic_io import atomic_folder
from centermask.utils.errors import InputError

MAX_OBJECTS = 5
CROWD_RADIUS = (4.0, 7.0)
EMPTY_SHARE = 0.05
CROWD_SHARE = 0.05

# An object that the ones in front leave less of can't be told by a person, so such a placement is drawn again.
MIN_VISIBLE_SHARE = 1 / 3
MIN_VISIBLE_AREA = 60.0
# Least distance in RGB between any colour of an object and any colour behind it.
MIN_CONTRAST = 70.0
# Slivers below this many pixels are no part of a visible outline.
MIN_PIECE_AREA = 2.0

SUPERSAMPLING = 4
MADE_BY = 'centermask shapes'


def _ring(points: int, *radii: float) -> np.ndarray:
    """Corners at equal angles, their radii repeating ``radii``: array (points, 2)."""
    angles = np.arange(points) * (2 * math.pi / points)
    radius = np.resize(np.array(radii), points)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _cross() -> np.ndarray:
    long, short = math.sqrt(0.9), math.sqrt(0.1)
    arm = np.array([[long, -short], [long, short], [short, short]])
    quarter_turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter_turn, i) for i in range(4)])


# Outlines (N, 2) within the unit circle; the order is that of the category ids, which start at 1.
OUTLINES = {
    'circle': _ring(48, 1.0),
    'triangle': _ring(3, 1.0),
    'square': _ring(4, 1.0),
    'star': _ring(10, 1.0, 0.42),
    'cross': _cross(),
}
CLASSES = tuple(OUTLINES)


class Layout(NamedTuple):
    """Sides of the pictures, and least and greatest radius of the circle around an object, in pixels."""

    size: int
    radius: tuple[float, float]


DEMO = Layout(160, (9.0, 36.0))


@dataclass
class Thing:
    """One object, or one crowd of small ones.

    Attributes:
        label: index into ``CLASSES``.
        shape: its whole outline.
        visible: what the things in front of it leave of the outline.
        colours: (5, 3) RGB samples of the colours that its texture is made of.
        texture: (S, S, 3) RGB, of which the outline shows a part.
        crowd: whether it is annotated as a crowd.
    """

    label: int
    shape: BaseGeometry
    visible: BaseGeometry
    colours: np.ndarray
    texture: np.ndarray
    crowd: bool = False


@dataclass
class Scene:
    """A background (S, S, 3), S being the layout's size, and the things on it, from back to front."""

    background: np.ndarray
    things: list[Thing]


def _pattern(rng: Generator, size: int) -> np.ndarray:
    """One of five families of texture: (S, S) in [-1, 1]."""
    angle, phase = rng.uniform(0, 2 * math.pi, 2)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    across = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    along = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
    family = rng.integers(5)
    if family == 0:  # gradient
        return (across - across.min()) * (2 / np.ptp(across)) - 1
    if family in (1, 2):  # stripes, checks
        frequency = np.float32(2 * math.pi / rng.uniform(7, 24))
        # Amplified sines have sharp edges, yet no jagged ones.
        stripes = np.clip(3 * np.sin(frequency * across + np.float32(phase)), -1, 1)
        return stripes if family == 1 else stripes * np.clip(3 * np.sin(frequency * along), -1, 1)
    cell = rng.uniform(1, 3) if family == 3 else rng.uniform(8, 24)  # noise, blobs
    coarse = rng.standard_normal((math.ceil(size / cell),) * 2, dtype=np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), -1, 1)


def _texture(rng: Generator, behind: list[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """A texture that stands out from what is behind it.

    Args:
        behind: colour samples (5, 3) of each thing it will cover.
        size: S, of the picture.

    Returns:
        Its colour samples (5, 3) and its pixels (S, S, 3).
    """
    candidates = 32
    base = rng.uniform(30, 225, (candidates, 3))
    direction = rng.standard_normal((candidates, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    swing = direction * rng.uniform(10, 45, (candidates, 1))
    colours = base[:, None] + np.linspace(-1, 1, 5)[:, None] * swing[:, None]
    chosen = 0
    if behind:
        others = np.concatenate(behind)
        contrast = np.linalg.norm(colours[:, :, None] - others, axis=-1).min(axis=(1, 2))
        enough = contrast >= MIN_CONTRAST
        chosen = int(enough.argmax() if enough.any() else contrast.argmax())
    pixels = _pattern(rng, size)[..., None] * swing[chosen].astype(np.float32) + base[chosen].astype(np.float32)
    return colours[chosen], pixels


def _outline(rng: Generator, label: int, radius: float, centre: np.ndarray) -> Polygon:
    angle = rng.uniform(0, 2 * math.pi)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return Polygon(OUTLINES[CLASSES[label]] @ rotation * radius + centre)


def _crowd(rng: Generator, background: np.ndarray, size: int) -> Thing:
    """A cluster of small shapes of one class, anywhere in the picture."""
    label = int(rng.integers(len(CLASSES)))
    members = int(rng.integers(8, 15))
    middle = rng.uniform(40, size - 40, 2)
    radii = rng.uniform(*CROWD_RADIUS, members)
    centres = np.clip(middle + rng.normal(0, 14, (members, 2)), CROWD_RADIUS[1], size - CROWD_RADIUS[1])
    pairs = zip(radii, centres, strict=True)
    shape = shapely.union_all([_outline(rng, label, radius, centre) for radius, centre in pairs])
    return Thing(label, shape, shape, *_texture(rng, [background], size), crowd=True)


def _put_in_front(rng: Generator, things: list[Thing], background: np.ndarray, layout: Layout) -> None:
    """Add one object to ``things`` where it leaves enough of those behind it; give up after some tries."""
    label = int(rng.integers(len(CLASSES)))
    for _ in range(20):
        radius = rng.uniform(*layout.radius)
        shape = _outline(rng, label, radius, rng.uniform(radius, layout.size - radius, 2))
        remains = [thing.visible.difference(shape) for thing in things]
        if all(
            rest.area >= max(MIN_VISIBLE_AREA, MIN_VISIBLE_SHARE * thing.shape.area)
            for thing, rest in zip(things, remains, strict=True)
        ):
            behind = [thing.colours for thing in things if thing.shape.intersects(shape)]
            for thing, rest in zip(things, remains, strict=True):
                thing.visible = rest
            things.append(Thing(label, shape, shape, *_texture(rng, [background, *behind], layout.size)))
            return


def make_scene(seed: int, index: int, layout: Layout = DEMO) -> Scene:
    """Picture number ``index`` of the data set ``seed``, not yet drawn."""
    rng = np.random.default_rng((seed, index))
    colours, background = _texture(rng, [], layout.size)
    things: list[Thing] = []
    kind = rng.random()
    if kind >= EMPTY_SHARE:
        if kind < EMPTY_SHARE + CROWD_SHARE:
            things.append(_crowd(rng, colours, layout.size))
        for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
            _put_in_front(rng, things, colours, layout)
    return Scene(background, things)


def solid_pieces(shape: BaseGeometry) -> list[Polygon]:
    """Polygons without holes that together cover a shape: COCO's polygons can't say what isn't inside."""
    pieces = []
    for part in getattr(shape, 'geoms', [shape]):
        if not isinstance(part, Polygon) or part.is_empty:
            continue
        if not part.interiors:
            pieces.append(part)
            continue
        x = part.interiors[0].centroid.x
        left, bottom, right, top = part.bounds
        for half in (shapely.box(left, bottom, x, top), shapely.box(x, bottom, right, top)):
            pieces += solid_pieces(part.intersection(half))
    return pieces


def _coverage(shape: BaseGeometry, size: int) -> np.ndarray:
    """Share of each pixel that lies inside an outline: (S, S) in [0, 1]."""
    canvas = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
    fraction_bits = 4
    # fillPoly also fills the pixels under the outline itself, which is half a pixel too much all round.
    for polygon in solid_pieces(shape.buffer(-0.5 / SUPERSAMPLING, join_style='mitre')):
        # It counts from the middle of the first pixel.
        corners = np.array(polygon.exterior.coords) * SUPERSAMPLING - 0.5
        cv2.fillPoly(canvas, [np.round(corners * 2**fraction_bits).astype(np.int32)], 255, shift=fraction_bits)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def paint(scene: Scene) -> np.ndarray:
    """Draw a scene from back to front: (S, S, 3) RGB, 8 bits."""
    canvas = scene.background.copy()
    for thing in scene.things:
        canvas += _coverage(thing.shape, len(canvas))[..., None] * (thing.texture - canvas)
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8)


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths of a mask: column by column, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order='F').astype(bool)])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def annotate(thing: Thing) -> dict:
    """COCO annotation of the visible part of a thing, without its ids."""
    category = thing.label + 1
    if thing.crowd:
        size = len(thing.texture)
        mask = _coverage(thing.visible, size) >= 0.5
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        return dict(
            category_id=category,
            segmentation=dict(size=[size, size], counts=_run_lengths(mask)),
            area=int(mask.sum()),
            bbox=[int(value) for value in box],
            iscrowd=1,
        )
    pieces = [piece for piece in solid_pieces(thing.visible) if piece.area >= MIN_PIECE_AREA]
    # What is rounded is what counts: box and area are those of the polygons in the file.
    corners = [np.round(np.array(piece.exterior.coords)[:-1], 2) for piece in pieces]
    low = np.min([piece.min(axis=0) for piece in corners], axis=0)
    high = np.max([piece.max(axis=0) for piece in corners], axis=0)
    return dict(
        category_id=category,
        segmentation=[piece.ravel().tolist() for piece in corners],
        area=round(sum(Polygon(piece).area for piece in corners), 2),
        bbox=np.round(np.concatenate([low, high - low]), 2).tolist(),
        iscrowd=0,
    )


def _made_here(folder: Path) -> bool:
    try:
        return json.loads((folder / 'annotations.json').read_text())['info']['made_by'] == MADE_BY
    except (OSError, ValueError, LookupError, TypeError):
        return False


def is_there(out: Path, images: int, seed: int, layout: Layout = DEMO) -> bool:
    """Whether :func:`make_dataset` has written just this data set; arguments as it takes them."""
    try:
        made = json.loads((out / 'annotations.json').read_text())
        wanted = json.loads(json.dumps(layout._asdict()))  # tuples become lists
        return (made['info']['seed'], made['info']['layout'], len(made['images'])) == (seed, wanted, images)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def make_dataset(out: Path, images: int, seed: int, layout: Layout = DEMO) -> dict:
    """Write ``images/*.jpg`` and ``annotations.json`` (COCO instances with polygons) into ``out``.

    The folder appears when it is complete. One that this function made earlier is replaced.

    Args:
        out: folder to write.
        images: how many pictures.
        seed: not negative; another seed gives other pictures.
        layout: sizes of the pictures and of what is on them.

    Returns:
        What was written into ``annotations.json``.

    Raises:
        InputError: a number out of range, or a folder that can't be written or holds something else.
    """
    if images < 1:
        raise InputError(f'--images {images}: ask for at least one picture.')
    if seed < 0:
        raise InputError(f'--seed {seed}: use zero or a positive number.')
    with atomic_folder(out, _made_here) as folder:
        return _write(folder, images, seed, layout)


def _write(folder: Path, images: int, seed: int, layout: Layout) -> dict:
    (folder / 'images').mkdir()
    coco: dict = dict(
        info=dict(description='Textured shapes', made_by=MADE_BY, seed=seed, layout=layout._asdict()),
        images=[],
        annotations=[],
        categories=[dict(id=i, name=name, supercategory='shape') for i, name in enumerate(CLASSES, 1)],
    )
    # Halved chroma would smear the edges between colours.
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    for index in tqdm(range(images), desc=f'Drawing {folder.name}', unit='image', disable=None):
        scene = make_scene(seed, index, layout)
        name = f'{index:06d}.jpg'
        _, data = cv2.imencode('.jpg', paint(scene)[..., ::-1], quality)
        (folder / 'images' / name).write_bytes(data.tobytes())
        coco['images'].append(dict(id=index + 1, file_name=name, width=layout.size, height=layout.size))
        for thing in scene.things:
            number = len(coco['annotations']) + 1
            coco['annotations'].append(dict(id=number, image_id=index + 1, **annotate(thing)))
    (folder / 'annotations.json').write_text(json.dumps(coco))
    return coco
