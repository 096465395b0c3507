"""Parts of an HTML page: tables, numbers, images within the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

UNDEFINED = '–'  # noqa: RUF001


class Shade(str):
    """A table's cell with a number from 0 to 1, shown by the darkness of its ground too."""


def number(value: float, decimals: int = 3) -> str:
    """Return a figure, a dash where there is none; COCO's evaluation has -1 without objects."""
    return f'{value:.{decimals}f}' if value >= 0 else UNDEFINED


def shade(value: float) -> str:
    """Return a figure from 0 to 1 as a shaded cell."""
    return Shade(number(value)) if value >= 0 else UNDEFINED


def table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str = '') -> str:
    """Return a table that scrolls within the page where it is wide, with a name for those who hear it."""
    top = ''.join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = ''.join('<tr>' + ''.join(map(_cell, row)) + '</tr>' for row in rows)
    content = f'<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    # A part that scrolls must be reached by the keyboard.
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title or "table")}">{content}</div>'


def _cell(text: str) -> str:
    return (
        f'<td class="shade" style="--v:{text}">{text}</td>' if isinstance(text, Shade) else f'<td>{escape(text)}</td>'
    )


def image(path: Path, caption: str) -> str:
    """Return an image file as part of the page, which then needs no other file."""
    kind = path.suffix[1:].replace('jpg', 'jpeg')
    source = f'data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}'
    text = escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
