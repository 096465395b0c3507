"""Read one image as training does, and look at what training doesn't tell."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import NamedTuple

import mmcv
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from centermask.datasets.checking import findings as kinds
from centermask.datasets.images import UnreadableError, check_image, pil_unlimited
from centermask.utils.errors import InputError

ORIENTATION = 0x0112
BITS_PER_SAMPLE = 258
END_OF_JPEG = b'\xff\xd9'
PNG = b'\x89PNG'
PNG_DEPTH = 24


class Looked(NamedTuple):
    """Findings about an image; its width and height as training reads it, None where it can't; a digest."""

    found: list[str]
    size: tuple[int, int] | None
    digest: bytes


def look(path: Path, max_pixels: int) -> Looked:
    """Read an image file to its end, unless training would refuse to."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Looked([kinds.MISSING], None, b'')
    except OSError:
        return Looked([kinds.UNREADABLE], None, b'')
    digest = hashlib.sha256(content).digest()
    try:
        check_image(path, max_pixels)
    except UnreadableError:  # of which the reading below decides
        pass
    except InputError:
        return Looked([kinds.REFUSED], None, digest)
    try:
        found = _header(path, content)
        pixels = mmcv.imfrombytes(content)  # as LoadImageFromFile does
    except Exception:
        pixels = None
    if pixels is None:
        return Looked([kinds.UNREADABLE], None, digest)
    return Looked(found, (pixels.shape[1], pixels.shape[0]), digest)


def _header(path: Path, content: bytes) -> list[str]:
    """What an image's header says; raises where the rest of the image isn't there."""
    found = []
    with warnings.catch_warnings(), pil_unlimited():
        warnings.simplefilter('ignore')
        with Image.open(path) as image:
            if image.format == 'JPEG' and END_OF_JPEG not in content[-64:]:
                image.load()  # OpenCV fills what a truncated one lacks with gray
            bits = image.tag_v2.get(BITS_PER_SAMPLE, (8,)) if isinstance(image, TiffImageFile) else (8,)
            if max(bits) > 8 or image.mode.startswith('I') or (content[:4] == PNG and content[PNG_DEPTH] == 16):
                found.append(kinds.DEEP)
            if image.mode[0] in '1LI':
                found.append(kinds.GRAY)
            if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
                found.append(kinds.ALPHA)
            if image.getexif().get(ORIENTATION, 1) != 1:
                found.append(kinds.ROTATED)
    return found
