"""Objects given as mask images, read as COCO's run-length encoding: a file an object, or a file of instance ids."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_utils
from PIL import Image
from scipy.ndimage import find_objects
from tqdm.contrib.concurrent import thread_map

from centermask.datasets.coco_annotations import shorten
from centermask.datasets.images import FORMATS, SUFFIXES, check_image, pil_unlimited
from centermask.utils.errors import InputError

IMAGE_FOLDERS = {'images', 'image', 'imgs', 'img', 'raw'}
MASK_FOLDERS = {'masks', 'mask', 'labels', 'label', 'instances', 'instance_masks', 'segmentations', 'annotations', 'gt'}
MASK_NAME = re.compile(
    r'(.+?)(?:\.jpe?g|\.png|\.tiff?)?(?:[ _.-](?:cp_)?(?:masks?|labels?|inst(?:ance)?s?(?:_?ids|_map)?|seg|gt))?',
    re.IGNORECASE,
)
IMAGE_NAME = re.compile(r'(.+?)[ _.-](?:img|image|raw)', re.IGNORECASE)
# Parts of a mask that don't touch, above which files of ids hold something else: occluded objects have a few.
MAX_PARTS = 2
# The part of their pixels that files of an object may have under half of the brightest value, as soft edges have.
MAX_SOFT = 0.3

Folders = tuple[str, ...]


@dataclass
class Masks:
    """The mask files of an image.

    Attributes:
        files: Their paths.
        ids: Whether each value of the one file is an object; otherwise each file is one.
    """

    files: list[Path] = field(default_factory=list)
    ids: bool = False


@dataclass
class MaskFolder:
    """The images of a folder and their mask files.

    Attributes:
        masks: By image.
        without: Images that have no mask file.
    """

    masks: dict[Path, Masks]
    without: list[Path]


def find_masks(folder: Path) -> MaskFolder | None:
    """Pair images and mask files by their names, None if no image has one.

    The folders of masks and images differ in ``masks`` (or another of ``MASK_FOLDERS``) for ``images``. There, ids are
    in ``NAME.*`` or ``NAME_masks.*``, an object in ``NAME/*``, ``NAME_*``, or anything where there is one image. A file
    ``NAME_masks.*`` (or ``_label``, ...) beside an image holds ids too.

    Raises:
        InputError: A mask file belongs to no image, or could belong to two.
    """
    images: dict[tuple[Folders, str], list[Path]] = defaultdict(list)
    candidates: list[tuple[Path, Folders]] = []
    files = (Path(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names)
    for path in sorted(path for path in files if path.suffix.lower() in SUFFIXES):
        parts = path.relative_to(folder).parts[:-1]
        if any(part.startswith(('.', '__MACOSX')) for part in (*parts, path.name)):
            continue
        place = tuple(part for part in parts if part.lower() not in IMAGE_FOLDERS | MASK_FOLDERS)
        if any(part.lower() in MASK_FOLDERS for part in parts):
            candidates.append((path, place))
        else:
            images[place, _stem(path, IMAGE_NAME)].append(path)
    for place, stem in [*images]:  # masks beside the images
        named = _stem(Path(f'{stem}.png'), MASK_NAME)
        if named != stem and (place, named) in images:
            candidates += [(path, place) for path in images.pop((place, stem))]

    stems: dict[Folders, list[str]] = defaultdict(list)
    for place, stem in images:
        stems[place].append(stem)
    masks: dict[Path, Masks] = defaultdict(Masks)
    lost = []
    for path, place in candidates:
        key, ids = _image_key(path, place, stems)
        if key is None:
            lost.append(path)
            continue
        if len(images[key]) > 1:
            raise InputError(f'{path} could be the mask of {shorten(images[key])}: leave one of these images.')
        of_image = masks[images[key][0]]
        of_image.files.append(path)
        of_image.ids = ids and len(of_image.files) == 1
    if not masks:
        return None
    if lost:
        raise InputError(
            f'{len(lost)} mask files belong to no image, such as {shorten(lost, 3)}: name each like its image.'
        )
    return MaskFolder(masks, [path for paths in images.values() for path in paths if path not in masks])


def _stem(path: Path, suffix: re.Pattern[str]) -> str:
    """Return a file's name without a suffix such as ``_masks``."""
    match = suffix.fullmatch(path.stem)
    return match[1] if match else path.stem


def _image_key(path: Path, place: Folders, stems: dict[Folders, list[str]]) -> tuple[tuple[Folders, str] | None, bool]:
    """Return the image that a mask file is of, and whether the file holds ids."""
    here = stems.get(place, [])
    for stem in (path.stem, _stem(path, MASK_NAME)):
        if stem in here:
            return (place, stem), True
    if place and place[-1] in stems.get(place[:-1], []):
        return (place[:-1], place[-1]), False
    if len(here) == 1:
        return (place, here[0]), False
    begins = [stem for stem in here if path.stem.startswith(stem) and not path.stem[len(stem)].isalnum()]
    return ((place, max(begins, key=len)), False) if begins else (None, False)


def read_masks(folder: Path, found: MaskFolder) -> tuple[dict, list[str]]:
    """Read mask files, all objects of one class.

    Returns:
        The content of a file in COCO format, with file names relative to ``folder``, and remarks for the user.

    Raises:
        InputError: A file can't be used, is of another size than its image, or holds no ids.
    """
    content: dict[str, list] = {'images': [], 'annotations': [], 'categories': [{'id': 1, 'name': 'object'}]}
    files = found.masks
    read = thread_map(_read_image, files, files.values(), desc=f'Reading {folder}', unit='image', disable=None)
    for number, (path, image) in enumerate(zip(files, read, strict=True), start=1):
        name = path.relative_to(folder).as_posix()
        content['images'].append({'id': number, 'file_name': name, 'width': image.width, 'height': image.height})
        for rle in image.objects:
            content['annotations'].append(
                {
                    'id': len(content['annotations']) + 1,
                    'image_id': number,
                    'category_id': 1,
                    'iscrowd': 0,
                    'bbox': mask_utils.toBbox(rle).tolist(),
                    'area': float(mask_utils.area(rle)),
                    'segmentation': {**rle, 'counts': rle['counts'].decode()},
                }
            )
    soft, pixels = sum(image.soft for image in read), sum(image.pixels for image in read)
    if soft > MAX_SOFT * pixels:
        example = next(masks.files[0] for masks in files.values() if not masks.ids)
        raise InputError(
            f'{folder}: {soft / pixels:.0%} of the pixels of the masks, such as {example}, have less than half of the '
            'greatest value: a file must be one object, or, for ids of objects, have the name of its image.'
        )
    of_ids = [image for image, masks in zip(read, files.values(), strict=True) if masks.ids]
    objects_of_ids = sum(len(image.objects) for image in of_ids)
    parts_of_ids = sum(image.parts for image in of_ids)
    values = {value for image in of_ids for value in image.values}
    several = parts_of_ids > MAX_PARTS * objects_of_ids
    if several and len(values) == 1:
        raise InputError(
            f'{folder}: the masks have one value, {values.pop()}, for all objects of an image, so objects are not told '
            'apart: give each object a value of its own (scipy.ndimage.label does for objects that do not touch).'
        )
    remarks = []
    if several:
        remarks.append(
            f'The masks of {folder} have {objects_of_ids} values in {parts_of_ids} parts that do not touch: '
            'each value of an image must be one object, not a class.'
        )
    if found.without:
        remarks.append(f'{len(found.without)} images without a mask file are left out: {shorten(found.without, 3)}.')
    if empty := sum(image.empty_files for image in read):
        remarks.append(f'{empty} mask files hold no object.')
    return content, remarks


@dataclass
class _ImageMasks:
    """What the mask files of an image hold.

    Attributes:
        width, height: Size of the image.
        objects: The masks as RLE.
        empty_files: Number of files without an object.
        soft, pixels: Of files of an object, the pixels under half of the greatest value, and all but the background.
        values, parts: Of files of ids, the ids, and the number of parts that don't touch, of all objects.
    """

    width: int
    height: int
    objects: list[dict] = field(default_factory=list)
    empty_files: int = 0
    soft: int = 0
    pixels: int = 0
    values: set[int] = field(default_factory=set)
    parts: int = 0


def _read_image(path: Path, masks: Masks) -> _ImageMasks:
    width, height = check_image(path).size
    image = _ImageMasks(width, height)
    for file in masks.files:
        values = _read_values(file, path, (width, height), masks.ids)
        if not masks.ids:
            mask = np.asfortranarray(values > values.max() / 2, dtype=np.uint8)
            pixels = int(np.count_nonzero(values))
            image.pixels += pixels
            image.soft += pixels - int(mask.sum())
            if mask.any():
                image.objects.append(mask_utils.encode(mask))
            else:
                image.empty_files += 1
            continue
        found = np.unique(values[values != 0])
        image.values |= {*found.tolist()}
        labels = np.where(values != 0, np.searchsorted(found, values) + 1, 0)
        for number, box in enumerate(find_objects(labels), start=1):
            columns = box[1]
            image.objects.append(_to_rle(labels[:, columns] == number, columns.start, width))
            image.parts += cv2.connectedComponents((labels[box] == number).astype(np.uint8), connectivity=8)[0] - 1
    return image


def _read_values(path: Path, of: Path, size: tuple[int, int], ids: bool) -> np.ndarray:
    """Return the values of a mask, (H, W), those of colours packed into one number, without an alpha channel."""
    try:
        with pil_unlimited(), Image.open(path, formats=FORMATS) as image:
            if image.size != size:
                raise InputError(
                    f'The mask {path} is {image.width}x{image.height} pixels but its image {of} {size[0]}x{size[1]}: '
                    'give masks of the size of their images.'
                )
            if getattr(image, 'n_frames', 1) > 1:
                raise InputError(f'The mask {path} holds several images: save each as a file.')
            if ids and image.format == 'JPEG':
                raise InputError(f'The mask {path} is a JPEG file, which does not keep the ids of objects: use PNG.')
            values = np.asarray(image)
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f'The mask {path} could not be read, it is damaged: remove it.') from error
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        values = colours.astype(np.int64) @ (256 ** np.arange(colours.shape[2]))
    return np.rint(values) if values.dtype.kind == 'f' else values


def _to_rle(columns: np.ndarray, first: int, width: int) -> dict:
    """Encode a mask, of which the columns (H, N) from ``first`` on are given and others are empty, as COCO's RLE."""
    height = len(columns)
    flat = np.concatenate([[0], columns.T.reshape(-1), [0]]).astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + first * height
    lengths = np.diff(changes, prepend=0, append=height * width).tolist()
    lengths = lengths if lengths[-1] else lengths[:-1]
    return mask_utils.frPyObjects({'size': [height, width], 'counts': lengths}, height, width)
