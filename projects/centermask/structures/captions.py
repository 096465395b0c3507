"""Labels beside objects where there is room, and the legend that replaces them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from centermask.structures.fonts import load_font

PAD = 3  # pixels around a text
MAX_COVERED = 0.25  # of an object's box by a label
MAX_COLUMNS = 3

Colour = tuple[int, int, int]


class Caption(NamedTuple):
    """The label of an object: its class, its score in percent or nothing, and its colour."""

    name: str
    score: str
    colour: Colour

    def size(self, font_size: int) -> tuple[int, int]:
        """Return the label's width and height in pixels."""
        widths = [load_font(text, font_size).getlength(text) + PAD for text in (self.name, self.score) if text]
        return int(sum(widths)) + PAD + 1, line_height(font_size)

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int, font_size: int) -> None:
        """Draw the label with its upper left corner at a position."""
        width, height = self.size(font_size)
        draw.rectangle((left, top, left + width - 1, top + height - 1), fill=self.colour)
        ink = 'black' if np.dot(self.colour, (0.299, 0.587, 0.114)) > 120 else 'white'
        x = float(left + PAD)
        for text in filter(None, (self.name, self.score)):
            font = load_font(text, font_size)
            draw.text((x, top + height / 2), text, ink, font, anchor='lm')
            x += font.getlength(text) + PAD

    @lru_cache(maxsize=4096)  # noqa: B019 - a tuple of texts and numbers; labels recur in the frames of a video
    def picture(self, font_size: int) -> np.ndarray:
        """Return the label as an RGB image (h, w, 3), which isn't to be changed."""
        image = Image.new('RGB', self.size(font_size))
        self.draw(ImageDraw.Draw(image), 0, 0, font_size)
        return np.asarray(image)


def line_height(font_size: int) -> int:
    """Return the height of a label or of a line of the legend; Devanagari and Arabic want more than Latin."""
    return round(1.5 * font_size)


def place_labels(
    boxes: np.ndarray, sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]
) -> list[tuple[int, int] | None]:
    """Find room for the labels of objects, of the largest first.

    A label is above its object's box, in its upper corner or below it. It overlaps no other label, covers no more than
    a quarter of any object, and an object smaller than a line of text has none.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 of the objects in pixels.
        sizes: width and height of each label.
        image_size: height and width of the image.

    Returns:
        The upper left corner of each label, None where there is no room.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(1).prod(1)
    places: list[tuple[int, int] | None] = [None] * len(boxes)
    taken = np.empty((0, 4))
    for i in np.argsort(-areas, kind='stable'):
        (x1, y1, x2, y2), (width, height) = boxes[i].round().astype(int), sizes[i]
        if max(x2 - x1, y2 - y1) < height:
            continue
        left = max(0, min(x1, image_size[1] - width))
        for top in (y1 - height, y1, y2):
            label = np.array([left, top, left + width, top + height])
            if top < 0 or label[2] > image_size[1] or label[3] > image_size[0]:
                continue
            if not overlaps(label, taken).any() and (overlaps(label, boxes) <= MAX_COVERED * areas).all():
                places[i] = (left, top)
                taken = np.vstack([taken, label])
                break
    return places


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the areas that a box (4,) has in common with boxes (N, 4)."""
    return (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(0).prod(1)


def draw_legend(title: str, rows: Sequence[tuple[str, int, Colour | None]], height: int, font_size: int) -> np.ndarray:
    """Draw the names, numbers of objects and colours of classes as a white column (height, W, 3).

    Classes that do not fit into three columns are counted in the last line.
    """
    line = line_height(font_size)
    lines = max(1, (height - PAD) // line - 1)  # below the title
    if len(rows) > lines * MAX_COLUMNS:
        shown = lines * MAX_COLUMNS - 1
        left_out = rows[shown:]
        rows = [*rows[:shown], (f'in {len(left_out)} more classes', sum(count for _, count, _ in left_out), None)]
    swatch = font_size if any(colour for _, _, colour in rows) else 0
    digits = load_font('0', font_size).getlength(str(max(count for _, count, _ in rows)))
    indent = int(swatch + digits) + 3 * PAD
    columns = [rows[start : start + lines] for start in range(0, len(rows), lines)]
    widths = [
        indent + int(max(load_font(name, font_size).getlength(name) for name, _, _ in column)) + 4 * PAD
        for column in columns
    ]
    title_font = load_font(title, font_size)
    image = Image.new('RGB', (max(sum(widths), int(title_font.getlength(title)) + 4 * PAD), height), 'white')
    draw = ImageDraw.Draw(image)
    draw.text((2 * PAD, PAD + line / 2), title, 'black', title_font, anchor='lm')
    for number, column in enumerate(columns):
        left = 2 * PAD + sum(widths[:number])
        for place, (name, count, colour) in enumerate(column, start=1):
            middle = PAD + (place + 0.5) * line
            if colour:
                draw.rectangle((left, middle - swatch / 2 + 1, left + swatch - 2, middle + swatch / 2 - 1), fill=colour)
            draw.text((left + indent - 2 * PAD, middle), str(count), 'black', load_font('0', font_size), anchor='rm')
            draw.text((left + indent, middle), name, 'black', load_font(name, font_size), anchor='lm')
    return np.asarray(image)
