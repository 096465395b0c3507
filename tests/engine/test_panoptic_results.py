"""Panoptic predictions in COCO's panoptic format, and the ids of their classes and images."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.small_panoptic import METAINFO, write_set
from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmengine.config import Config

from centermask.datasets.coco_panoptic import Category, PanopticAnnotations
from centermask.engine.coco_results import CocoResults
from centermask.engine.panoptic_results import PanopticResults

THINGS, STUFF = METAINFO['classes'], METAINFO['stuff_classes']
VOID = 4


def _write(folder: Path, names: list[str], config: dict | None = None) -> PanopticAnnotations:
    """Write a map of two cats, sky and void for each image, and read the files again."""
    images, cfg = [folder / name for name in names], Config(config or {})
    results = PanopticResults(CocoResults(images, folder, THINGS, cfg), STUFF, cfg, folder / 'out')
    panoptic = np.full((20, 30), VOID, np.int32)
    panoptic[:5], panoptic[5:10], panoptic[10:12] = 3, 0 + INSTANCE_OFFSET, 0 + 300 * INSTANCE_OFFSET
    for image in images:
        results.add(image, panoptic)
    return PanopticAnnotations(results.write(), folder / 'out/predictions.panoptic')


def test_format(tmp_path: Path) -> None:
    written = _write(tmp_path, ['a.jpg', 'b/7.jpg'])
    assert written.categories == [
        *(Category(i, name, True) for i, name in enumerate(THINGS, 1)),
        *(Category(i, name, False) for i, name in enumerate(STUFF, 3)),
    ]
    assert written.images['2'] == {'id': 2, 'file_name': 'b/7.jpg', 'height': 20, 'width': 30}
    numbers, segments = written.read(2)
    assert [(s['category_id'], s['area'], s['isthing']) for s in segments] == [(4, 150, 0), (1, 150, 1), (1, 60, 1)]
    assert numbers.shape == (20, 30) and [*numbers[[0, 5, 10, 12], 0]] == [1, 2, 3, 0]


def test_images_of_one_name(tmp_path: Path) -> None:
    written = _write(tmp_path, ['a.jpg', 'a.png'])
    assert len({written.png(number) for number in (1, 2)}) == 2


def test_ids_of_the_panoptic_file(tmp_path: Path) -> None:
    """They are those of the file that the evaluator names; of another file or none they aren't."""
    ann_file, _ = write_set(tmp_path)
    config = dict(test_evaluator=[dict(type='SemanticIoU'), dict(type='PanopticQuality', ann_file=str(ann_file))])
    assert {c.name: c.id for c in _write(tmp_path, ['a.jpg'], config).categories} == dict(cat=7, dog=1, grass=3, sky=9)
    content = json.loads(ann_file.read_text())
    content['categories'][0]['name'] = 'horse'
    ann_file.write_text(json.dumps(content))
    assert {c.name: c.id for c in _write(tmp_path, ['a.jpg'], config).categories} == dict(cat=1, dog=2, grass=3, sky=4)
    ann_file.unlink()
    assert _write(tmp_path, ['a.jpg'], config).categories[0].id == 1


@pytest.mark.parametrize('own', [False, True])
def test_ids_without_a_panoptic_file(tmp_path: Path, own: bool) -> None:
    """COCO's classes have its ids; beside ids of an annotation file those of stuff are the next ones."""
    things, stuff = CocoDataset.METAINFO['classes'], CocoPanopticDataset.METAINFO['stuff_classes']
    results = CocoResults([tmp_path / 'a.jpg'], tmp_path, things, Config())
    if own:
        results.category_ids = [10 * number for number in range(1, 81)]
    panoptic = PanopticResults(results, stuff, Config(), tmp_path)
    assert 'no panoptic file of these classes' in panoptic.origin
    panoptic.add(tmp_path / 'a.jpg', np.full((8, 8), 80))
    ids = {c['name']: c['id'] for c in json.loads(panoptic.write().read_text())['categories']}
    assert len(set(ids.values())) == 133
    picked = [ids[name] for name in ('person', 'toothbrush', 'banner', 'rug-merged')]
    assert picked == ([10, 800, 801, 853] if own else [1, 90, 92, 200])
