"""Image files of any origin: checked before anything of them is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdet.apis.det_inferencer import IMG_EXTENSIONS
from PIL import Image

from centermask.utils.errors import InputError

# 300 MB decoded, more than cameras produce. A file of a few bytes can claim to be larger.
MAX_PIXELS = 100_000_000
EXIF_ORIENTATION = 0x0112
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')


class UnreadableError(InputError):
    """A file that is missing, damaged or not an image."""


def unreadable(path: str | Path) -> str:
    """Return the message about a file that no image can be read from."""
    return f'The image {path} could not be read, it is damaged or not an image: remove it.'


def find_images(source: str) -> list[Path]:
    """Return the path of one image, or of those in a folder in the order of their names.

    Raises:
        InputError: There is no such file, or no image in the folder.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"The image or folder {source} doesn't exist: give the path of one.")
    images = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in IMG_EXTENSIONS)
    if not images:
        raise InputError(f'The folder {source} holds no image: their names would end in {", ".join(IMG_EXTENSIONS)}.')
    return images


@contextmanager
def pil_unlimited() -> Iterator[None]:
    """Lift PIL's own limit of an image's pixels, which differs from ours."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_image(path: str | Path, max_pixels: int = MAX_PIXELS, decode: bool = False) -> None:
    """Refuse a file that is no image, is too large, or would not look right once decoded.

    Args:
        path: Path of the file; its suffix doesn't matter.
        max_pixels: The most pixels to decode.
        decode: Whether to read it to its end, as cheaply as its format allows. OpenCV fills the missing part of a
            truncated JPEG with gray without an error.

    Raises:
        UnreadableError: It isn't an image.
        InputError: It has more pixels, is in CMYK (whose colours OpenCV guesses) or holds several images.
    """
    if not Path(path).is_file():
        raise UnreadableError(f"The image {path} is no file or doesn't exist: remove it from the images.")
    Image.init()  # loads the other half of PIL's formats
    try:
        with pil_unlimited(), Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f'The image {path} has {width}x{height} pixels, more than the {max_pixels} that --max-pixels '
                    '(max_pixels of a data set) allows: remove it, or allow more if you trust its origin.'
                )
            several = getattr(image, 'is_animated', False) and image.format != 'MPO'  # phones add a second view
            if several or image.mode == 'CMYK':
                raise InputError(f'The image {path} holds several images or is in CMYK: save one image in RGB.')
            if decode:
                image.draft('RGB', (1, 1))  # decodes a JPEG at an eighth of its size
                image.load()
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise UnreadableError(unreadable(path)) from error


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image as it is shown, rotated by its EXIF orientation.

    Raises:
        InputError: As for :func:`check_image`.
    """
    check_image(path)
    with pil_unlimited(), Image.open(path, formats=FORMATS) as image:
        rotated = image.getexif().get(EXIF_ORIENTATION, 1) > 4
        return (image.height, image.width) if rotated else (image.width, image.height)
