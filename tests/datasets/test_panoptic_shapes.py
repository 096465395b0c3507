"""Synthetic panoptic images: the panoptic maps agree with the objects, and hold everything that COCO's do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from centermask.datasets.coco_panoptic import PanopticAnnotations
from centermask.datasets.panoptic_shapes import STUFF
from centermask.datasets.semantic_masks import semantic_labels, semantic_map
from centermask.datasets.shapes import CLASSES


@pytest.fixture(scope='module')
def folder(tools: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('panoptic') / 'set'
    tools('make_shapes_dataset')([str(out), '--images', '40', '--panoptic'])
    return out


@pytest.fixture(scope='module')
def truth(folder: Path) -> PanopticAnnotations:
    return PanopticAnnotations(folder / 'panoptic.json', folder / 'panoptic')


def test_categories(truth: PanopticAnnotations) -> None:
    assert tuple(category.name for category in truth.things) == CLASSES
    assert tuple(category.name for category in truth.stuff) == STUFF


def test_segments_are_the_visible_parts_of_the_objects(folder: Path, truth: PanopticAnnotations) -> None:
    coco = COCO(str(folder / 'annotations.json'))
    crowds = 0
    for image in coco.getImgIds():
        numbers, segments = truth.read(image)
        left = [number for number, segment in enumerate(segments, start=1) if segment['isthing']]
        for entry in coco.loadAnns(coco.getAnnIds(image)):
            mask = coco.annToMask(entry)
            ious = [(mask & (numbers == number)).sum() / (mask | (numbers == number)).sum() for number in left]
            # Outlines drawn by pycocotools differ by a pixel at the edges, of which a crowd has many.
            assert max(ious) > (0.6 if entry['iscrowd'] else 0.8)
            segment = segments[left.pop(int(np.argmax(ious))) - 1]
            assert (segment['category_id'], segment['iscrowd']) == (entry['category_id'], entry['iscrowd'])
            crowds += entry['iscrowd']
        assert not left
    assert crowds


def test_semantic_maps_hold_things_each_stuff_and_void(truth: PanopticAnnotations) -> None:
    labels, pixels = semantic_labels(truth), np.zeros(256, np.int64)
    for image in truth.image_ids():
        pixels += np.bincount(semantic_map(*truth.read(image), labels).reshape(-1), minlength=256)
    assert np.flatnonzero(pixels).tolist() == [0, 1, 2, 3, 255]
    share = pixels / pixels.sum()
    assert share[0] > 0.05 and (share[1:4] > 0.15).all() and 0.003 < share[255] < 0.05
