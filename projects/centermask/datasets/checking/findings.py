"""What can be wrong with a data set, in the words that the table uses, and how bad each is."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """What a finding does to a training."""

    NOTE = 0
    LOSES = 1
    FAILS = 2


# Of the file.
FIELDS = 'entries without a needed field, or with one of the wrong type'
IDS = 'ids that another entry has too'
NAMES = 'categories of the same name'
NOTHING = 'files with nothing to train on'

# Of images.
MISSING = 'images that are missing'
UNREADABLE = 'images that are damaged or none'
REFUSED = 'images that are refused (in CMYK, several in one file, or of more pixels than max_pixels)'
SIZE = 'images of another size than the file says'
ROTATED = 'images turned by their EXIF orientation'
GRAY = 'gray images (read as colour)'
DEEP = 'images of 16 bits a channel (read as 8)'
ALPHA = 'images with alpha (which is dropped)'
COPIES = 'images that are another one byte for byte, or the same file'

# Of objects; what datasets.annotations leaves out has its words there.
UNKNOWN_IMAGE = 'of an image that the file does not list'
UNKNOWN_CATEGORY = 'of a category that the file does not list'
BOX_UNUSABLE = 'whose box is under a pixel or outside the image'
NO_AREA = 'whose polygons have no area'
NO_LOCATION = 'that no location of FCOS learns, being too small or too thin'
COVERED = 'whose locations all learn smaller objects'
FLAT = 'of whose polygons one has no area'
CROSSING = 'whose outline crosses itself'
OUTSIDE = 'whose polygons leave the image'
BOX = 'whose box is not that of its polygons'
RLE = 'given as RLE without being a crowd (trained as polygons)'
DUPLICATE = 'that are another one again'

FAILING = {FIELDS, IDS, NAMES, NOTHING, MISSING, UNREADABLE, REFUSED, SIZE}
NOTED = {ROTATED, GRAY, DEEP, ALPHA, COPIES, FLAT, CROSSING, OUTSIDE, BOX, RLE, DUPLICATE}
# Of images that training can't read.
UNUSABLE = {MISSING, UNREADABLE, REFUSED}
# Where no repair helps: larger images do, or fewer objects on each other.
BEYOND_REPAIR = {NO_LOCATION, COVERED}


def level_of(kind: str) -> Level:
    """How bad a kind of finding is; reasons of ``datasets.annotations`` to leave an object out lose it."""
    return Level.FAILS if kind in FAILING else Level.NOTE if kind in NOTED else Level.LOSES


class Finding(NamedTuple):
    """One thing wrong.

    Attributes:
        kind: one of the above, or a reason of ``datasets.annotations``.
        what: names it: a file, or an object by its id.
        image: id of the image, None where it belongs to none.
        annotation: place of the object in the file's list, None for an image or an entry that can't be read.
    """

    kind: str
    what: str
    image: int | float | str | None = None
    annotation: int | None = None
