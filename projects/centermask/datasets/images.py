"""Image files from anywhere: looked at before anything of them is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmdet.apis.det_inferencer import IMG_EXTENSIONS
from PIL import Image

from centermask.datasets.annotations import LARGEST, is_number
from centermask.utils.errors import InputError

# 300 MB decoded: cameras make no larger pictures, and a file of a few bytes can claim to be one.
MAX_PIXELS = 100_000_000
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')


def valid_max_pixels(value: Any) -> int:
    """Return the ``max_pixels`` of a data set; a ValueError says what it must be."""
    if not is_number(value, LARGEST) or value < 1:
        raise ValueError(f'max_pixels is a number from 1 up, not {value!r}')
    return value


class UnreadableError(InputError):
    """A file that is damaged, no image or not there."""


def unreadable(path: str | Path) -> str:
    """What to say of a file that no image can be read from."""
    return f'The image {path} could not be read, it is damaged or no image: take it away.'


def find_images(source: str) -> list[Path]:
    """The image itself, or those of a folder in the order of their names.

    Raises:
        InputError: there is no such file, or no image in the folder.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"The image or folder {source} doesn't exist: give the path of one.")
    images = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in IMG_EXTENSIONS)
    if not images:
        raise InputError(f'The folder {source} holds no image: its files would end in {", ".join(IMG_EXTENSIONS)}.')
    return images


@contextmanager
def pil_unlimited() -> Iterator[None]:
    """Lift PIL's own limit of an image's pixels, which is of another size than ours, and warns."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_image(path: str | Path, max_pixels: int = MAX_PIXELS, to_its_end: bool = False) -> None:
    """Refuse a file that is no image, or one that would be too large or not what it looks like once decoded.

    Args:
        path: of the file; what its name ends in doesn't matter.
        max_pixels: the most pixels to decode.
        to_its_end: whether to read it to its end, as cheaply as its format allows. OpenCV fills what a truncated JPEG
            lacks with gray and says nothing.

    Raises:
        UnreadableError: it isn't an image.
        InputError: it has more pixels, is in CMYK (which OpenCV guesses the colours of) or holds more
            than one picture.
    """
    if not Path(path).is_file():
        raise UnreadableError(f"The image {path} is no file or doesn't exist: take it away.")
    Image.init()  # PIL knows half of its formats until then
    try:
        with pil_unlimited(), Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f'The image {path} has {width}x{height} pixels, more than the {max_pixels} that --max-pixels '
                    '(max_pixels of a data set) allows: take it away, or allow more if you know where it is from.'
                )
            if image.mode == 'CMYK':
                raise InputError(f'The image {path} is in CMYK, the colours of print: save it in RGB.')
            if getattr(image, 'is_animated', False) and image.format != 'MPO':  # phones' pictures with a second view
                raise InputError(f'The image {path} holds several pictures: save the one that is meant.')
            if to_its_end:
                image.draft('RGB', (1, 1))  # a JPEG is decoded at an eighth of its size
                image.load()
    except InputError:
        raise
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        raise UnreadableError(unreadable(path)) from error
