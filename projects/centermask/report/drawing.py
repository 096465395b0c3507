"""What pictures and figures share: objects drawn on an image, colours of classes, the look of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from PIL import Image, ImageDraw, ImageFont

from centermask.utils.errors import InputError

TITLE_HEIGHT = 26
FILL = 0.4


@dataclass
class Shown:
    """One object in a picture: mask (H, W) of the image's size or None, box (x, y, w, h), colour and label."""

    mask: np.ndarray | None
    box: Sequence[float]
    colour: tuple[int, int, int]
    label: str


def class_colours(number: int) -> list[tuple[int, int, int]]:
    """RGB colours of classes, distinct for as many as a palette has and all around the hues beyond that."""
    palette = matplotlib.colormaps['tab10' if number <= 10 else 'hsv']
    golden = 0.618
    places = [i if number <= 10 else (i * golden) % 1 for i in range(number)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b, _ in map(palette, places)]


def read_image(path: Path) -> np.ndarray:
    """An image as (H, W, 3) RGB.

    Raises:
        InputError: there is no such file, or it is no image.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f'{path} is missing or no image: it is needed to draw on.')
    return image[..., ::-1]


def draw_objects(
    image: np.ndarray, objects: Sequence[Shown], scale: float, title: str = '', boxes: bool = False
) -> np.ndarray:
    """An image with its objects on it.

    Args:
        image: (H, W, 3) RGB.
        objects: in pixels of it.
        scale: of the picture to the image.
        title: stands above, where given.
        boxes: whether boxes are drawn too; those of objects without a mask are.
    """
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    # The greatest first: small objects stay visible on them.
    objects = sorted(objects, key=_area, reverse=True)
    for shown in objects:
        if shown.mask is not None:
            mask = cv2.resize(shown.mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
            canvas[mask] = (1 - FILL) * canvas[mask] + FILL * np.array(shown.colour)
            outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(canvas, outlines, -1, (255, 255, 255), 3, cv2.LINE_AA)
            cv2.drawContours(canvas, outlines, -1, shown.colour, 2, cv2.LINE_AA)
        if boxes or shown.mask is None:
            x, y, w, h = (round(scale * value) for value in shown.box)
            cv2.rectangle(canvas, (x, y), (x + w - 1, y + h - 1), shown.colour, 1 if boxes else 2)
    return _with_text(canvas, objects, scale, title)


def _area(shown: Shown) -> float:
    return float(shown.box[2] * shown.box[3]) if shown.mask is None else float(shown.mask.sum())


def _with_text(canvas: np.ndarray, objects: Sequence[Shown], scale: float, title: str) -> np.ndarray:
    height, width = canvas.shape[:2]
    above = TITLE_HEIGHT if title else 0
    page = Image.new('RGB', (width, height + above), 'white')
    page.paste(Image.fromarray(canvas), (0, above))
    draw = ImageDraw.Draw(page)
    draw.text((0, 4), title, fill='#444', font=_font(15))
    font = _font(13)
    taken: list[tuple[float, float, float, float]] = []
    for shown in (one for one in objects if one.label):
        label_width = draw.textlength(shown.label, font=font) + 6
        left = min(max(shown.box[0] * scale, 0), max(width - label_width, 0))
        tops = [(shown.box[1] + share * shown.box[3]) * scale for share in (0, 0.25, 0.5, 0.75, 1)]
        places = [(left, min(max(top - 9, 0), height - 18) + above) for top in tops]
        labels = [(x, y, x + label_width, y + 18) for x, y in places]
        # The first place that covers no other label.
        place = next((box for box in labels if not any(_overlap(box, other) for other in taken)), labels[0])
        taken.append(place)
        bright = np.dot(shown.colour, (0.299, 0.587, 0.114)) > 150
        draw.rectangle(place, fill=shown.colour)
        draw.text((place[0] + 3, place[1] + 1), shown.label, fill='black' if bright else 'white', font=font)
    return np.array(page)


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib brings this font along.
    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), size)


def plain(axes: Axes) -> None:
    """Give a figure's axes the look that all have."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(labelsize=8.5)
    axes.grid(color='#e6e6e6', linewidth=0.7)
    axes.set_axisbelow(True)
