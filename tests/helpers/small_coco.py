"""A small annotation file in COCO's format, and its parts."""

import numpy as np
import pycocotools.mask as mask_utils

PIPELINE = [
    {'type': 'LoadImageFromFile'},
    {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True, 'poly2mask': False},
    {'type': 'PackDetInputs'},
]
SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]


def annotation(number: int, image: int = 1, category: int = 7, **fields: object) -> dict:
    """Return the annotation of a 20 x 20 square, with ``fields`` replaced or added."""
    square = {'segmentation': SQUARE, 'bbox': [10, 10, 20, 20], 'area': 400, 'iscrowd': 0}
    return {'id': number, 'image_id': image, 'category_id': category, **square, **fields}


def rle(compressed: bool) -> dict:
    """Return the RLE of the 20 x 20 square at (10, 10) in an image of 60 x 40."""
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:30] = 1
    if compressed:
        encoded = mask_utils.encode(np.asfortranarray(mask))
        return {'size': encoded['size'], 'counts': encoded['counts'].decode()}
    flat = mask.T.reshape(-1)
    return {'size': [40, 60], 'counts': np.diff([0, *np.flatnonzero(np.diff(flat, prepend=0)), flat.size]).tolist()}
