"""Annotation files: what is completed, what is left out, what is refused, and the classes in them."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_coco import SQUARE, annotation, rle
from mmengine.config import Config

from centermask.datasets import CenterMaskCocoDataset, CenterMaskCocoMetric, read_classes
from centermask.utils.errors import InputError

Edit = Callable[[dict], None]


def test_missing_area_and_iscrowd_are_filled_in(build, content: dict) -> None:
    for fields in content['annotations']:
        del fields['area'], fields['iscrowd']
    content['annotations'][1]['area'] = 0
    dataset = build()
    assert [len(dataset[i]['data_samples'].gt_instances) for i in range(2)] == [1, 1]


@pytest.mark.parametrize('segmentation', [SQUARE, rle(True), rle(False)], ids=['polygon', 'rle', 'plain rle'])
def test_area_is_that_of_the_pixels(build, content: dict, tmp_path: Path, segmentation: object) -> None:
    content['annotations'] = [annotation(101, segmentation=segmentation, bbox=[5, 5, 50, 30], area=None)]
    build()
    metric = CenterMaskCocoMetric(str(tmp_path / 'annotations.json'), metric='segm')
    (read,) = metric._coco_api.anns.values()
    assert read['area'] == 400


@pytest.mark.parametrize(
    ('fields', 'reason'),
    [
        ({'segmentation': [[1, 1, 5, 5]]}, 'polygon has under three points'),
        ({'segmentation': [[1, 1, 5, 5, 9]]}, 'polygon has under three points'),
        ({'segmentation': [1, 1, 5, 5, 9, 1]}, 'polygon has under three points'),
        ({'segmentation': [['a', 1, 5, 5, 9, 1]]}, 'polygon is not a list of numbers'),
        ({'segmentation': []}, 'without segmentation'),
        ({'segmentation': None}, 'without segmentation'),
        ({'segmentation': {'size': [40, 60]}}, 'RLE is damaged'),
        ({'segmentation': {'size': [40, 60], 'counts': [3, 4]}}, 'RLE is damaged'),
        ({'segmentation': {'size': [40, 60], 'counts': [2400]}}, 'RLE is empty'),
        ({'segmentation': {'size': [4, 6], 'counts': [4, 20]}}, 'RLE is not of the size of its image'),
        ({'bbox': [10, 10, 0, 20]}, 'box is under a pixel'),
        ({'bbox': [10, 10, 20, -3]}, 'box is under a pixel'),
        ({'bbox': [100, 10, 20, 20]}, 'box is under a pixel or outside the image'),
        ({'category_id': 99}, 'of a category that the file does not list'),
        ({'image_id': 99}, 'of an image that the file does not list'),
    ],
)
@pytest.mark.parametrize('test_mode', [False, True])
def test_annotation_that_can_not_be_used_is_named(
    build, content: dict, warnings: list[str], fields: dict, reason: str, test_mode: bool
) -> None:
    content['annotations'].append(annotation(103, **fields))
    dataset = build(test_mode=test_mode)
    assert len(dataset[0]['data_samples'].gt_instances) == 1
    assert len(warnings) == 1
    assert 'annotations.json: left out 1 annotations' in warnings[0]
    assert reason in warnings[0]
    assert '(ids 103)' in warnings[0]


def test_one_warning_counts_each_reason(build, content: dict, warnings: list[str]) -> None:
    content['annotations'] += [annotation(200 + i, segmentation=[]) for i in range(12)]
    content['annotations'] += [annotation(300, bbox=[0, 0, 0, 0])]
    build()
    assert len(warnings) == 1
    assert 'left out 13 annotations' in warnings[0]
    assert '12 without segmentation (ids 200, 201' in warnings[0]
    assert 'and 2 more)' in warnings[0]
    assert '1 whose box is under a pixel or outside the image (ids 300)' in warnings[0]


def test_usable_polygons_of_an_object_stay(build, content: dict, warnings: list[str]) -> None:
    content['annotations'][0]['segmentation'] = [[1, 1, 2, 2], *SQUARE]
    masks = build()[0]['data_samples'].gt_instances.masks
    assert [polygon.tolist() for polygon in masks.masks[0]] == SQUARE
    assert '1 in part, as one polygon has under three points (ids 101)' in warnings[0]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"images": [\n  {"id": 1,}]}', r'not valid JSON: .* at line 2, column 1\d'),
        ('', 'not valid JSON: .* at line 1, column 1'),
        (b'\xff\xfe\x00', 'not text in UTF-8'),
        ('[]', 'must hold an object with the lists categories, images, annotations'),
    ],
)
def test_file_that_is_not_json(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / 'bad.json'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf'bad\.json .*{message}'):
        CenterMaskCocoDataset(ann_file=str(path), pipeline=[])
    with pytest.raises(InputError, match=r'bad\.json'):
        CenterMaskCocoMetric(str(path))
    with pytest.raises(InputError, match=r'bad\.json'):
        read_classes(str(path))


def test_missing_file(tmp_path: Path) -> None:
    for use in (lambda path: CenterMaskCocoDataset(ann_file=path, pipeline=[]), CenterMaskCocoMetric, read_classes):
        with pytest.raises(InputError, match=r'gone\.json does not exist: correct ann_file'):
            use(str(tmp_path / 'gone.json'))
        with pytest.raises(InputError, match='could not be read: Is a directory'):
            use(str(tmp_path))


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (lambda c: c.pop('images'), 'not in COCO format: it has no list "images"'),
        (lambda c: c.pop('annotations'), 'not in COCO format: it has no list "annotations"'),
        (lambda c: c.pop('categories'), 'not in COCO format: it has no list "categories"'),
        (lambda c: c['images'][1].pop('width'), 'entry 1 of "images" has no valid "width"'),
        (lambda c: c['images'][0].update(height=0), 'entry 0 of "images" has no valid "height"'),
        (lambda c: c['annotations'][1].pop('bbox'), 'entry 1 of "annotations" has no valid "bbox"'),
        (lambda c: c['annotations'][1].update(bbox=[1, 2]), 'entry 1 of "annotations" has no valid "bbox"'),
        (lambda c: c['annotations'][1].update(area='big'), 'entry 1 of "annotations" has no valid "area"'),
        (lambda c: c['annotations'][1].update(area=[400]), 'entry 1 of "annotations" has no valid "area"'),
        (lambda c: c['annotations'][0].update(iscrowd='no'), 'entry 0 of "annotations" has no valid "iscrowd"'),
        (lambda c: c['annotations'][0].update(iscrowd=math.nan), 'entry 0 of "annotations" has no valid "iscrowd"'),
        (lambda c: c['images'][0].update(width=math.inf), 'entry 0 of "images" has no valid "width"'),
        (lambda c: c['annotations'][0].pop('id'), 'entry 0 of "annotations" has no valid "id"'),
        (lambda c: c['categories'][0].pop('name'), 'entry 0 of "categories" has no valid "name"'),
        (lambda c: c['annotations'].insert(0, 'x'), 'entry 0 of "annotations" has no valid "id"'),
        (lambda c: c['annotations'][1].update(id=101), 'two "annotations" with the id 101'),
        (lambda c: c['images'][1].update(id=1), 'two "images" with the id 1'),
        (lambda c: c['categories'][1].update(id=7), 'two "categories" with the id 7'),
        (lambda c: c['categories'][1].update(name='cat'), 'two categories "cat"'),
        (lambda c: c['categories'].clear(), 'lists no categories'),
        (lambda c: c['annotations'].clear(), 'none of its 2 images has a usable object of the classes cat, dog'),
        (lambda c: c['images'].clear(), 'none of its 0 images'),
        (lambda c: c['images'][1].update(file_name='3.png'), r'1 of the 2 images of .* the first is .*images/3\.png'),
        (lambda c: c['images'][0].update(file_name='sub/1.png'), r'the first is .*sub/1\.png'),
    ],
)
def test_bad_content_is_one_sentence(build, content: dict, edit: Edit, message: str) -> None:
    edit(content)
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert 'annotations.json' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_test_images_need_no_annotations(build, content: dict, tmp_path: Path) -> None:
    del content['annotations']
    assert len(build(test_mode=True)) == 2
    path = str(tmp_path / 'annotations.json')
    with pytest.raises(InputError, match='no list "annotations"'):
        CenterMaskCocoMetric(path)
    assert CenterMaskCocoMetric(path, format_only=True, outfile_prefix=str(tmp_path / 'out')).format_only


def test_read_classes_in_the_order_of_ids(build, tmp_path: Path) -> None:
    build()
    assert read_classes(str(tmp_path / 'annotations.json')) == ('dog', 'cat')


def test_read_classes_in_a_config(build, tmp_path: Path) -> None:
    """The function itself is dropped from the config, which can be written and read again without it."""
    build()
    (tmp_path / 'base.py').write_text('model = dict(num_classes=80)\n')
    (tmp_path / 'own.py').write_text(
        f"_base_ = 'base.py'\n"
        f'from centermask.datasets import read_classes\n'
        f"classes = read_classes('{tmp_path / 'annotations.json'}')\n"
        f'model = dict(num_classes=len(classes))\n'
    )
    config = Config.fromfile(tmp_path / 'own.py')
    assert dict(config) == {'model': {'num_classes': 2}, 'classes': ('dog', 'cat')}
    config.dump(tmp_path / 'dumped.py')
    assert dict(Config.fromfile(tmp_path / 'dumped.py')) == dict(config)


def test_read_classes_ends_a_config_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / 'own.py').write_text(
        "_base_ = []\nfrom centermask.datasets import read_classes\nclasses = read_classes('gone.json')\n"
    )
    with pytest.raises(InputError, match=r'gone\.json does not exist'):
        Config.fromfile(tmp_path / 'own.py')
