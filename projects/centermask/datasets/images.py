"""Image files of any origin: checked before anything of them is decoded, and read by one rule.

The rule is MMDetection's ``LoadImageFromFile``, which is OpenCV's for colour images: three channels of 8 bits, turned
as EXIF says; of 16 bits the upper 8, gray three times, without alpha. What libraries read differently is refused.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmdet.apis.det_inferencer import IMG_EXTENSIONS
from PIL import Image

from centermask.utils.errors import InputError

# 300 MB decoded, more than cameras produce. A file of a few bytes can claim to be larger.
MAX_PIXELS = 100_000_000
FORMATS = ('AVIF', 'BMP', 'GIF', 'JPEG', 'JPEG2000', 'PNG', 'PPM', 'TIFF', 'WEBP')
SUFFIXES = (*IMG_EXTENSIONS, '.avif', '.gif', '.j2k', '.jp2')
ORIENTATION = 0x0112  # EXIF's number of this tag
# OpenCV turns WebP since version 5, and AVIF never.
TURNED_BY_SOME = ('AVIF', 'WEBP')
# Images whose brightest value is less, of 255, were stored for another range.
LEAST_BRIGHTEST = 64
# Numbers of images that are looked at before a run: headers take a second, decoding a few.
HEADERS, DECODED = 2000, 30


class UnreadableError(InputError):
    """A file that is missing, damaged or not an image."""


class ImageFacts(NamedTuple):
    """What a file says about its image.

    Attributes:
        size: Width and height in pixels as the image is read, turned.
        orientation: EXIF's number from 1 (upright) to 8; from 5 on, width and height are exchanged.
        bits: Bits of a channel in the file, 8 or 16; 0 without decoding.
        brightest: The largest value once read as 8 bits; 0 without decoding.
        channels: Channels in the file as OpenCV decodes it, with alpha; 0 without decoding.
    """

    size: tuple[int, int]
    orientation: int
    bits: int = 0
    brightest: int = 0
    channels: int = 0


def unreadable(path: str | Path) -> str:
    """Return the message about a file that no image can be read from."""
    what = 'it is damaged or not an image'
    with suppress(OSError), open(path, 'rb') as file:
        if file.read(4) in (b'II*\0', b'MM\0*'):
            what = 'it is a damaged TIFF or has other numbers than 8 or 16 bits a channel'
    return f'The image {path} could not be read, {what}: remove it.'


def find_images(source: str) -> list[Path]:
    """Return the path of one image, or of those in a folder and its folders in the order of their names.

    Raises:
        InputError: There is no such file, or no image in the folder.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"The image or folder {source} doesn't exist: give the path of one.")
    images = files_in(path, SUFFIXES)
    if not images:
        raise InputError(f'The folder {source} holds no image: their names would end in {", ".join(SUFFIXES)}.')
    return images


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of these suffixes in a folder and its folders, by their names, without hidden ones."""
    return sorted(
        entry
        for entry in folder.rglob('*')
        if entry.suffix.lower() in suffixes and not any(part[0] == '.' for part in entry.relative_to(folder).parts)
    )


@contextmanager
def pil_unlimited() -> Iterator[None]:
    """Lift PIL's own limit of an image's pixels, which differs from ours."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_image(path: str | Path, max_pixels: int = MAX_PIXELS, decode: bool = False) -> ImageFacts:
    """Refuse a file that is no image, is too large, or would not look right once decoded; return its facts.

    Args:
        path: Path of the file; its suffix doesn't matter.
        max_pixels: The most pixels to decode.
        decode: Whether to read it to its end, as cheaply as its format allows. OpenCV fills the missing part of a
            truncated JPEG with gray without an error.

    Raises:
        UnreadableError: It isn't an image.
        InputError: It has more pixels, is of a kind that libraries read differently, or holds several images.
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
                    '(max_pixels of a data set or predict) allows: remove it, or allow more if you trust its origin.'
                )
            several = getattr(image, 'is_animated', False) and image.format != 'MPO'  # phones add a second view
            if several or image.mode == 'CMYK':
                raise InputError(f'The image {path} holds several images or is in CMYK: save one image in RGB.')
            if image.mode in ('F', 'HSV', 'LAB') or (image.mode == 'I' and image.format != 'PPM'):
                raise InputError(
                    f'The image {path} holds floats, signed or 32-bit numbers, or no RGB: save it with 8 or 16 bits a '
                    'channel, scaled to their whole range.'
                )
            orientation = _orientation(image)
            if decode:
                image.draft('RGB', (1, 1))  # decodes a JPEG at an eighth of its size
                image.load()  # which turns a TIFF, and finds EXIF at the end of a PNG
                orientation = max(orientation, _orientation(image))
            if orientation != 1 and image.format in TURNED_BY_SOME:
                raise InputError(
                    f'The image {path} is turned by its EXIF orientation {orientation}, which not every library obeys '
                    f'in {image.format}: save it turned, without the tag.'
                )
            if orientation > 4 and image.format != 'TIFF':  # PIL has exchanged them in TIFF
                width, height = height, width
            return ImageFacts((width, height), orientation)
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise UnreadableError(unreadable(path)) from error


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, without XMP's, which OpenCV doesn't obey."""
    if image.format == 'TIFF':
        orientation = image.tag_v2.get(ORIENTATION)  # type: ignore[attr-defined]
    else:
        exif = Image.Exif()
        with suppress(Exception):  # OpenCV too takes damaged EXIF for none
            exif.load(image.info.get('exif', b''))
        orientation = exif.get(ORIENTATION)
    return orientation if orientation in range(1, 9) else 1


def inspect_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Read a file to its end, also as training does, and return all its facts.

    Raises:
        InputError: As :func:`check_image` does, and where OpenCV can't read it.
    """
    facts = check_image(path, max_pixels, decode=True)
    content = np.fromfile(path, np.uint8)  # OpenCV 5 reads turned TIFF from memory only, as MMDetection does
    try:
        stored = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        in_8_bits = stored is not None and stored.dtype == np.uint8  # then the colours are read as they are
        read = stored if in_8_bits else cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error:
        read = None
    if read is None:
        raise UnreadableError(unreadable(path))
    # OpenCV reads gray JPEG 2000 with alpha, of 8 bits, as colours alone.
    bits = 8 if stored is None or in_8_bits else 16
    channels = 3 if stored is None else stored[0, 0].size
    return facts._replace(
        bits=bits, brightest=int(read[..., :3].max() if read.ndim == 3 else read.max()), channels=channels
    )


def as_read(image: np.ndarray) -> np.ndarray:
    """Return an array (H, W, 3) of bytes, as the file of this array would be read.

    Args:
        image: (H, W) or (H, W, 1) in gray, (H, W, 3) in BGR or (H, W, 4) with alpha, of uint8 or uint16.

    Raises:
        InputError: The array is another one, such as one of floats, whose range isn't known.
    """
    channels = image.shape[2:] or (1,)
    known = image.dtype in (np.uint8, np.uint16) and image.ndim in (2, 3) and channels[0] in (1, 3, 4)
    if not known or not image.size:
        raise InputError(
            f'The image is an array of {image.dtype} of the shape {image.shape}: give uint8, or uint16 that fills its '
            'range, of the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).'
        )
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
        if remark := describe_range([ImageFacts(image.shape[1::-1], 1, 16, int(image.max()))]):
            warnings.warn(remark, stacklevel=2)
    image = image.reshape(*image.shape[:2], *channels)
    return np.ascontiguousarray(np.broadcast_to(image[..., :3], (*image.shape[:2], 3)))


def describe_size(facts: ImageFacts, stated: tuple[float, float]) -> str:
    """Return, for a width and height that aren't the image's, what its size is and what EXIF has to do with it."""
    size = f'is {facts.size[0]}x{facts.size[1]} pixels'
    if facts.orientation > 4 and tuple(stated) == facts.size[::-1]:
        size += (
            f' once turned by its EXIF orientation {facts.orientation} (remove that tag, as by exiftool -Orientation=, '
            'if the outlines were drawn on the unturned image)'
        )
    return size


def describe_range(images: Iterable[ImageFacts]) -> str:
    """Return a sentence on images that are read almost black, '' where there are none."""
    tops: dict[int, list[int]] = {}
    for facts in images:
        tops.setdefault(facts.bits, []).append(facts.brightest)
    for bits, found in tops.items():
        # 8-bit images that are black may be meant to be; 16-bit ones hold values under 256.
        if bits and max(found) < LEAST_BRIGHTEST and (max(found) or bits == 16):
            return (
                f'images of {bits} bits a channel are read almost black, the brightest value of {len(found)} as '
                f'{max(found)} of 255: scale their values to fill the range up to {2**bits - 1}'
                + (' (times 16 where a camera has 12 bits).' if bits == 16 else '.')
            )
    return ''


def check_sample(stated: Mapping[str, tuple[float, float]], ann_file: str, max_pixels: int = MAX_PIXELS) -> str:
    """Look at images spread over a data set before a run.

    Args:
        stated: Width and height that the annotation file states, by the paths of the images.
        ann_file: Path of that file, for messages.
        max_pixels: The most pixels of an image to decode.

    Returns:
        The sentence of :func:`describe_range`.

    Raises:
        InputError: An image can't be used, or isn't of the size stated.
    """
    paths = [*stated]
    for path in paths[:: math.ceil(len(paths) / HEADERS) or 1]:
        facts = check_image(path, max_pixels)
        if facts.size != tuple(stated[path]):
            width, height = stated[path]
            raise InputError(
                f'The image {path} {describe_size(facts, stated[path])} but {ann_file} states {width}x{height}: '
                'correct one of them; tools/check_dataset.py lists all.'
            )
    # A JPEG has 8 bits and its whole range.
    others = [path for path in paths if not path.lower().endswith(('.jpg', '.jpeg'))]
    return describe_range(inspect_image(path, max_pixels) for path in others[:: math.ceil(len(others) / DECODED) or 1])
