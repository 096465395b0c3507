from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from shapely import Polygon, box

from centermask.datasets import shapes
from centermask.utils.errors import InputError

IMAGES = 120


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('shapes') / 'set'
    shapes.make_dataset(out, IMAGES, seed=3)
    return out


@pytest.fixture(scope='module')
def coco(made):
    return json.loads((made / 'annotations.json').read_text())


def objects(coco):
    return [annotation for annotation in coco['annotations'] if not annotation['iscrowd']]


def test_the_set_holds_what_the_demo_needs(made, coco):
    assert len(list((made / 'images').iterdir())) == len(coco['images']) == IMAGES
    for image in coco['images']:
        assert cv2.imread(str(made / 'images' / image['file_name'])).shape == (160, 160, 3)
    assert {category['name'] for category in coco['categories']} == set(shapes.CLASSES)
    assert {annotation['category_id'] for annotation in objects(coco)} == set(range(1, len(shapes.CLASSES) + 1))
    per_image = np.bincount([a['image_id'] for a in objects(coco)], minlength=IMAGES + 1)[1:]
    assert per_image.max() == 5
    assert 0 < (per_image == 0).sum() < 0.15 * IMAGES
    crowds = [a for a in coco['annotations'] if a['iscrowd']]
    assert 0 < len(crowds) < 0.15 * IMAGES
    assert all(isinstance(a['segmentation']['counts'], list) for a in crowds)
    assert sum(len(a['segmentation']) > 1 for a in objects(coco)) > 0.02 * len(objects(coco))


def test_box_and_area_are_those_of_the_polygons(coco):
    for annotation in objects(coco):
        corners = [np.array(polygon).reshape(-1, 2) for polygon in annotation['segmentation']]
        assert min(map(len, corners)) >= 3
        assert annotation['area'] == pytest.approx(sum(Polygon(piece).area for piece in corners), abs=0.01)
        low, high = np.concatenate(corners).min(0), np.concatenate(corners).max(0)
        np.testing.assert_allclose(annotation['bbox'], [*low, *(high - low)], atol=0.01)
        assert low.min() >= 0
        assert high.max() <= 160
        assert annotation['area'] >= shapes.MIN_VISIBLE_AREA - 10


def test_crowds_are_readable_run_lengths(made, coco):
    index = COCO(str(made / 'annotations.json'))
    for annotation in coco['annotations']:
        if annotation['iscrowd']:
            mask = index.annToMask(annotation)
            assert mask.sum() == annotation['area']
            x, y, w, h = annotation['bbox']
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
            assert mask[y].any() and mask[:, x].any() and mask[y + h - 1].any() and mask[:, x + w - 1].any()


def test_annotations_follow_what_is_drawn():
    """Paint every thing white and all else black: what is white is what the annotation must say."""
    seen = 0
    for index in range(60):
        scene = shapes.make_scene(0, index)
        black = np.zeros_like(scene.background)
        for thing in scene.things:
            things = [dataclasses.replace(t, texture=black + 255 * (t is thing)) for t in scene.things]
            drawn = shapes.paint(shapes.Scene(black, things))[..., 0] >= 128
            segmentation = shapes.annotate(thing)['segmentation']
            runs = coco_mask.frPyObjects(segmentation, 160, 160)
            said = coco_mask.decode(coco_mask.merge(runs) if isinstance(runs, list) else runs).astype(bool)
            # pycocotools rounds outlines to fifths of a pixel, which shows in the smallest.
            least = 0.95 if drawn.sum() > 300 else 0.9
            assert (drawn & said).sum() / (drawn | said).sum() > least, (index, shapes.CLASSES[thing.label])
            seen += 1
    assert seen > 100


def test_objects_stand_out_from_what_is_behind():
    close = total = 0
    for index in range(100):
        scene = shapes.make_scene(1, index)
        for thing in scene.things:
            visible = shapes._coverage(thing.visible, 160) >= 1
            difference = np.linalg.norm(thing.texture[visible] - scene.background[visible], axis=-1)
            close += difference.min() < 0.8 * shapes.MIN_CONTRAST
            total += 1
    assert close < 0.02 * total


def test_every_object_keeps_enough_to_be_seen():
    for index in range(100):
        for thing in shapes.make_scene(2, index).things:
            assert thing.visible.area >= shapes.MIN_VISIBLE_SHARE * thing.shape.area - 1e-6


def test_holes_are_cut_open():
    ring = box(0, 0, 30, 30).difference(box(4, 4, 10, 10)).difference(box(15, 15, 25, 20))
    pieces = shapes.solid_pieces(ring)
    assert not any(piece.interiors for piece in pieces)
    assert sum(piece.area for piece in pieces) == pytest.approx(900 - 36 - 50)


def test_a_picture_depends_on_seed_and_number_alone(made, tmp_path):
    shapes.make_dataset(tmp_path / 'fewer', 20, seed=3)
    shapes.make_dataset(tmp_path / 'other', 20, seed=4)
    names = [path.name for path in sorted((tmp_path / 'fewer' / 'images').iterdir())]

    def read(folder):
        return [(folder / 'images' / name).read_bytes() for name in names]

    assert read(tmp_path / 'fewer') == read(made)
    assert not set(read(tmp_path / 'other')) & set(read(made))
    fewer = json.loads((tmp_path / 'fewer' / 'annotations.json').read_text())['annotations']
    assert fewer == json.loads((made / 'annotations.json').read_text())['annotations'][: len(fewer)]


def test_only_a_set_of_shapes_is_replaced(tmp_path):
    shapes.make_dataset(tmp_path / 'set', 3, seed=0)
    shapes.make_dataset(tmp_path / 'set', 2, seed=0)
    assert len(list((tmp_path / 'set' / 'images').iterdir())) == 2
    foreign = tmp_path / 'coco'
    foreign.mkdir()
    (foreign / 'annotations.json').write_text('{"info": {"description": "COCO 2017"}}')
    with pytest.raises(InputError, match='coco'):
        shapes.make_dataset(foreign, 2, seed=0)
