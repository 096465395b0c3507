"""A panoptic set of one image in COCO's format: a crowd, an object, two kinds of stuff, a part without label."""

import copy
import json
from pathlib import Path

import cv2
import numpy as np

SIZE = (40, 60)
CONTENT = {
    'images': [{'id': 4, 'file_name': 'a.jpg', 'width': 60, 'height': 40}],
    'annotations': [
        {
            'image_id': 4,
            'file_name': 'a.png',
            'segments_info': [
                {'id': 70000, 'category_id': 7, 'iscrowd': 1},
                {'id': 300, 'category_id': 1, 'iscrowd': 0},
                {'id': 5, 'category_id': 9, 'iscrowd': 0},
                {'id': 2, 'category_id': 3, 'iscrowd': 0},
            ],
        }
    ],
    'categories': [
        {'id': 7, 'name': 'cat', 'isthing': 1},
        {'id': 9, 'name': 'sky', 'isthing': 0},
        {'id': 3, 'name': 'grass', 'isthing': 0},
        {'id': 1, 'name': 'dog', 'isthing': 1},
    ],
}
# In the order of the model's labels, as a config may have it.
METAINFO = {'classes': ('cat', 'dog'), 'stuff_classes': ('grass', 'sky')}


def make_ids() -> np.ndarray:
    """Return the ids of the segments, (40, 60): four columns of 10 pixels, the rest is void."""
    ids = np.zeros(SIZE, np.int32)
    for column, segment in enumerate(CONTENT['annotations'][0]['segments_info']):
        ids[:, 10 * column : 10 * column + 10] = segment['id']
    return ids


def write_set(folder: Path, ids: np.ndarray | None = None, **changes: list) -> tuple[Path, Path]:
    """Write ``panoptic.json``, with ``changes`` for its lists, and ``panoptic/a.png``; return both paths."""
    ids = make_ids() if ids is None else ids
    (folder / 'panoptic').mkdir(exist_ok=True)
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    cv2.imwrite(str(folder / 'panoptic/a.png'), colours[..., ::-1])
    (folder / 'panoptic.json').write_text(json.dumps({**copy.deepcopy(CONTENT), **changes}))
    return folder / 'panoptic.json', folder / 'panoptic'
