"""Fonts that have the letters of class names."""

from __future__ import annotations

import subprocess
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from mmengine.logging import print_log
from PIL import ImageFont, features

DEFAULT = str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'))  # Latin, Greek, Cyrillic, Arabic, Hebrew
LONGEST = 24  # letters of a name
LISTED = 8  # names in the warning


@cache
def drawable_names(names: tuple[str, ...]) -> list[str]:
    """Return what to draw for the names of the classes: ``class 3`` where no font has a name's letters.

    Right-to-left and combining letters need Pillow's Raqm layout; without it their names are replaced too. One warning
    lists the replaced names and says what to install.
    """
    shown = [' '.join(unicodedata.normalize('NFC', name).split()) for name in names]
    unshaped = [i for i, name in enumerate(shown) if _needs_shaping(name) and not features.check('raqm')]
    missing = [i for i, name in enumerate(shown) if i not in unshaped and find_font(name) is None]
    if missing:
        cjk = any(
            unicodedata.name(c, '').startswith(('CJK', 'HIRA', 'KATA', 'HANGUL')) for i in missing for c in shown[i]
        )
        package = 'fonts-noto-cjk' if cjk else 'fonts-noto-core'
        _warn('No installed font has the letters of', missing, names, f'a font, for example apt install {package}')
    if unshaped:
        _warn('Pillow lacks the layout (Raqm) of', unshaped, names, 'FriBiDi, for example apt install libfribidi0')
    shown = [name if len(name) <= LONGEST else name[: LONGEST - 1] + '…' for name in shown]
    return [f'class {i}' if not name or i in (*missing, *unshaped) else name for i, name in enumerate(shown)]


def _warn(what: str, replaced: Sequence[int], names: Sequence[str], remedy: str) -> None:
    listed = ', '.join(f'class {i} for {names[i]}' for i in replaced[:LISTED])
    more = f' and {len(replaced) - LISTED} more' if len(replaced) > LISTED else ''
    print_log(f'{what} some class names, so that images show {listed}{more}: install {remedy}.', 'current', 30)


def _needs_shaping(text: str) -> bool:
    return any(unicodedata.bidirectional(c) in ('R', 'AL') or unicodedata.category(c) in ('Mn', 'Mc') for c in text)


@cache
def find_font(text: str) -> str | None:
    """Return the file of a font that has all letters of a text, None where none is installed."""
    wanted = {ord(c) for c in text if not c.isspace() and unicodedata.category(c) != 'Cf'}  # joiners have no glyph
    return next((path for path in _candidates(wanted) if wanted <= _letters(path)), None)


def _candidates(letters: set[int]) -> Iterator[str]:
    """Yield the default font, then fontconfig's best one; all fonts where there is no fontconfig."""
    yield DEFAULT
    pattern = 'sans:charset=' + ' '.join(f'{letter:x}' for letter in sorted(letters))
    try:
        found = subprocess.run(['fc-match', '-f', '%{file}', pattern], capture_output=True, text=True, timeout=60)
        yield found.stdout
    except (OSError, subprocess.TimeoutExpired):
        yield from sorted(findSystemFonts())


@cache
def _letters(path: str) -> frozenset[int]:
    """Return the code points of a font of outlines; fonts of coloured bitmaps, for emoji, have one size alone."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


@cache
def load_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Return the font of a text at a size in pixels."""
    return ImageFont.truetype(find_font(text) or DEFAULT, size)
