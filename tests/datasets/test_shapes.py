"""Synthetic images: annotations match what is drawn, and the demo's data stay the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from shapely import Polygon, box

from centermask.datasets import shapes
from centermask.utils.errors import InputError

IMAGES = 80


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('shapes') / 'set'
    shapes.make_dataset(out, IMAGES, seed=3)
    return out


@pytest.fixture(scope='module')
def coco(folder: Path) -> dict:
    return json.loads((folder / 'annotations.json').read_text())


def test_the_demo_trains_on_the_same_data_as_before() -> None:
    """The demo's AP was measured on these."""
    images, annotations = zip(*(shapes.draw_image(0, index) for index in range(3)), strict=True)
    areas = [[annotation['area'] for annotation in each] for each in annotations]
    expected = [[1032.8], [1405.7, 265.0, 897.9, 1290.3, 384.7], [1729.5, 345.1, 1849.7, 202.0]]
    assert areas == [pytest.approx(each, abs=0.1) for each in expected]
    assert [image.mean() for image in images] == pytest.approx([91.395, 167.817, 107.566], abs=0.01)


def test_a_dataset_has_empty_images_crowds_and_all_classes(folder: Path, coco: dict) -> None:
    assert len(list((folder / 'images').iterdir())) == len(coco['images']) == IMAGES
    assert cv2.imread(str(folder / 'images/000000.jpg')).shape == (160, 160, 3)
    objects = [annotation for annotation in coco['annotations'] if not annotation['iscrowd']]
    assert {annotation['category_id'] for annotation in objects} == set(range(1, len(shapes.CLASSES) + 1))
    per_image = np.bincount([annotation['image_id'] for annotation in objects], minlength=IMAGES + 1)[1:]
    assert per_image.max() == 5 and 0 < (per_image == 0).sum() < 0.15 * IMAGES
    assert 0 < len(coco['annotations']) - len(objects) < 0.15 * IMAGES
    assert any(len(annotation['segmentation']) > 1 for annotation in objects)


def test_boxes_and_areas_are_those_of_the_outlines(folder: Path, coco: dict) -> None:
    index = COCO(str(folder / 'annotations.json'))
    for annotation in coco['annotations']:
        x, y, w, h = annotation['bbox']
        if annotation['iscrowd']:
            mask = index.annToMask(annotation)
            assert mask.sum() == annotation['area'] == mask[y : y + h, x : x + w].sum()
            assert mask[y].any() and mask[:, x].any() and mask[y + h - 1].any() and mask[:, x + w - 1].any()
            continue
        corners = [np.array(polygon).reshape(-1, 2) for polygon in annotation['segmentation']]
        assert annotation['area'] == pytest.approx(sum(Polygon(piece).area for piece in corners), abs=0.01)
        low, high = np.concatenate(corners).min(0), np.concatenate(corners).max(0)
        np.testing.assert_allclose([x, y, w, h], [*low, *(high - low)], atol=0.01)
        assert low.min() >= 0 and high.max() <= 160 and annotation['area'] > shapes.MIN_VISIBLE_AREA - 10


def test_annotations_match_what_is_drawn() -> None:
    """Paint each shape white and all else black: the white part is what its annotation must describe."""
    seen, size = 0, (240, 320)
    for index in range(15):
        background, scene = shapes.make_scene(0, index, size, (15.0, 60.0))
        black = np.zeros_like(background)
        for shape in scene:
            painted = [dataclasses.replace(other, texture=black + 255 * (other is shape)) for other in scene]
            drawn = shapes.paint(black, painted)[..., 0] >= 128
            runs = coco_mask.frPyObjects(shapes.annotate(shape)['segmentation'], *size)
            annotated = coco_mask.decode(coco_mask.merge(runs) if isinstance(runs, list) else runs).astype(bool)
            # pycocotools rounds outlines to fifths of a pixel, which shows in the smallest.
            least = 0.95 if drawn.sum() > 300 else 0.9
            assert (drawn & annotated).sum() / (drawn | annotated).sum() > least
            seen += 1
    assert seen > 20


def test_holes_are_cut_open() -> None:
    ring = box(0, 0, 30, 30).difference(box(4, 4, 10, 10)).difference(box(15, 15, 25, 20))
    pieces = shapes.solid_pieces(ring)
    assert not any(piece.interiors for piece in pieces)
    assert sum(piece.area for piece in pieces) == pytest.approx(900 - 36 - 50)


def test_an_image_depends_on_seed_and_index_alone(folder: Path, tmp_path: Path) -> None:
    shapes.make_dataset(tmp_path / 'fewer', 5, seed=3)
    shapes.make_dataset(tmp_path / 'other', 5, seed=4, classes=[f'class {i}' for i in range(80)])

    def read(path: Path) -> list[bytes]:
        return [(path / f'images/{i:06d}.jpg').read_bytes() for i in range(5)]

    assert read(tmp_path / 'fewer') == read(folder)
    assert not set(read(tmp_path / 'other')) & set(read(folder))
    other = json.loads((tmp_path / 'other/annotations.json').read_text())
    assert [category['name'] for category in other['categories']] == [f'class {i}' for i in range(80)]


def test_only_a_dataset_of_shapes_is_replaced(tmp_path: Path) -> None:
    shapes.make_dataset(tmp_path / 'set', 3, seed=0)
    assert shapes.dataset_exists(tmp_path / 'set', 3, seed=0)
    assert not shapes.dataset_exists(tmp_path / 'set', 3, seed=1)
    shapes.make_dataset(tmp_path / 'set', 2, seed=0)
    assert len(list((tmp_path / 'set' / 'images').iterdir())) == 2
    foreign = tmp_path / 'coco'
    foreign.mkdir()
    (foreign / 'annotations.json').write_text('{"info": {"description": "COCO 2017"}}')
    with pytest.raises(InputError, match='coco'):
        shapes.make_dataset(foreign, 2, seed=0)
