"""COCO's panoptic format, read and written."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.small_panoptic import CONTENT, make_ids, write_set
from mmdet.evaluation.functional import INSTANCE_OFFSET

from centermask.datasets.coco_panoptic import (
    STUFF,
    THINGS,
    PanopticAnnotations,
    categories_of,
    find_segments,
    read_panoptic_classes,
    write_ids,
    write_panoptic,
    write_panoptic_json,
)
from centermask.utils.errors import InputError, RunError


def changed(segment: int = 1, **fields: object) -> list:
    """Return the annotations with fields of a segment replaced."""
    annotations = copy.deepcopy(CONTENT['annotations'])
    annotations[0]['segments_info'][segment].update(fields)
    return annotations


def test_reads_the_number_of_each_pixels_segment(tmp_path: Path) -> None:
    numbers, segments = PanopticAnnotations(*write_set(tmp_path)).read(4)
    assert [segment['id'] for segment in segments] == [70000, 300, 5, 2]
    assert numbers[0, ::10].tolist() == [1, 2, 3, 4, 0, 0] and (numbers == numbers[0]).all()


def test_classes_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    assert read_panoptic_classes(write_set(tmp_path)[0]) == (('dog', 'cat'), ('grass', 'sky'))


def test_ids_of_cocos_classes_are_cocos() -> None:
    ids = {category.name: category.id for category in categories_of(THINGS, STUFF)}
    assert len(ids) == 133
    some = {'person': 1, 'toothbrush': 90, 'banner': 92, 'road': 149, 'tree-merged': 184, 'rug-merged': 200}
    assert ids | some == ids
    assert [category.id for category in categories_of(('cat',), ('sky', 'sea'))] == [1, 2, 3]


def test_a_written_map_is_read_again(tmp_path: Path) -> None:
    """A map as MMDetection has it: stuff is its label, an object its label and number, void the number of labels."""
    categories = categories_of(('dog', 'cat'), ('grass', 'sky'))
    panoptic = np.full((6, 8), 4)
    panoptic[:, :2], panoptic[:, 2:4], panoptic[:, 4:6] = 3, 1 + INSTANCE_OFFSET, 1 + 2 * INSTANCE_OFFSET
    image = {'id': 11, 'file_name': 'deep/b.jpg', 'width': 8, 'height': 6}
    entry = write_panoptic(panoptic, image, categories, tmp_path / 'out')
    write_panoptic_json(tmp_path / 'out.json', [image], [entry], categories)
    read = PanopticAnnotations(tmp_path / 'out.json', tmp_path / 'out')
    numbers, segments = read.read(11)
    assert read.png(11) == tmp_path / 'out/deep/b.png'
    assert [(each['category_id'], each['isthing'], each['area']) for each in segments] == [
        (4, 0, 12),
        (2, 1, 12),
        (2, 1, 12),
    ]
    assert numbers[0].tolist() == [1, 1, 2, 2, 3, 3, 0, 0] == find_segments(panoptic, categories)[0][0].tolist()


def test_ids_of_24_bits(tmp_path: Path) -> None:
    write_ids(tmp_path / 'a.png', np.array([[1, 256, 65536, 2**24 - 1]]))
    assert cv2.imread(str(tmp_path / 'a.png')).tolist() == [[[0, 0, 1], [0, 1, 0], [1, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'annotations': changed(category_id=44)}, 'gives segment 300 of a.png the category 44'),
        ({'annotations': changed(id=2**24)}, 'the id 16777216: ids are integers from 1 to 16777215'),
        ({'annotations': [{'image_id': 4, 'file_name': 'b.png', 'segments_info': []}]}, 'the first is .*b.png'),
        ({'annotations': changed(id=5)}, 'gives two segments of a.png one id'),
        ({'annotations': 2 * CONTENT['annotations']}, 'lists the image 4 twice'),
        ({'annotations': []}, 'has no segments'),
        ({'annotations': [{'image_id': 4}]}, 'an entry has no "file_name"'),
        ({'images': [{'id': 5, 'file_name': 'a.jpg'}]}, 'has segments of the image 4, which its list "images" lacks'),
        ({'images': [{'id': 4, 'file_name': '../a.jpg'}]}, r'the file_name \.\./a.jpg is no path within a folder'),
        ({'categories': CONTENT['categories'][:1]}, r'has no category of stuff \("isthing": 0\)'),
        ({'categories': None}, 'has no list "categories"'),
        ({'categories': [*CONTENT['categories'], CONTENT['categories'][0]]}, 'without an integer of their own'),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    paths = write_set(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        PanopticAnnotations(*paths)


def test_a_png_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    strange = make_ids()
    strange[3, 3] = 77
    for ids, message in ((strange, 'holds the segment 77'), (make_ids()[:, :50], 'is 50x40 pixels but .* 60x40')):
        with pytest.raises(RunError, match=message):
            PanopticAnnotations(*write_set(tmp_path, ids)).read(4)
    truth = PanopticAnnotations(*write_set(tmp_path))
    cv2.imwrite(str(truth.png(4)), np.zeros((40, 60), np.uint8))
    with pytest.raises(RunError, match='not in colours of 8 bits'):
        truth.read(4)
    truth.png(4).write_bytes(b'PNG')
    with pytest.raises(RunError, match='missing or damaged'):
        truth.read(4)
