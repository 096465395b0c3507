"""The reader of annotation files: what it fills in, leaves out and refuses, and the classes in a file."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_coco import SQUARE, annotation, rle
from mmengine.config import Config

from centermask.datasets import CenterMaskCocoDataset, CenterMaskCocoMetric, read_classes
from centermask.datasets.coco_annotations import CocoReader, Kind, Severity, outline_box
from centermask.utils.errors import InputError, RunError

Edit = Callable[[dict], None]


@pytest.mark.parametrize('segmentation', [SQUARE, rle(True), rle(False)], ids=['polygon', 'rle', 'plain rle'])
@pytest.mark.parametrize('area', [None, 0])
def test_missing_box_area_and_iscrowd_are_filled_in(content: dict, segmentation: object, area: float | None) -> None:
    content['annotations'] = [annotation(101, segmentation=segmentation, bbox=None, area=area)]
    del content['annotations'][0]['iscrowd']
    reader = CocoReader(content, 'annotations.json')
    (entry,) = reader.content['annotations']
    assert (entry['bbox'], entry['area'], entry['iscrowd'], reader.findings) == ([10, 10, 20, 20], 400, 0, [])


OBJECTS = [
    (Kind.POLYGON, {'segmentation': [['a', 1, 5, 5, 9, 1]], 'bbox': []}),
    (Kind.NOWHERE, {'segmentation': None, 'bbox': None}),
    (Kind.NOWHERE, {'segmentation': [[]], 'bbox': [0, 0, 0, 0]}),
    (Kind.RLE, {'segmentation': {'size': [40, 60], 'counts': [3, 4]}, 'bbox': None}),
    (Kind.BOX_UNUSABLE, {'bbox': [10, 10, 20, 0.3]}),
    (Kind.BOX_UNUSABLE, {'bbox': [100, 10, 20, 20]}),
    (Kind.UNKNOWN, {'category_id': 99}),
    (Kind.UNKNOWN, {'image_id': 99}),
]


@pytest.mark.parametrize(('kind', 'fields'), OBJECTS)
def test_object_that_can_not_be_used_is_left_out_and_counted(
    build, content: dict, warnings: list[str], kind: Kind, fields: dict
) -> None:
    content['annotations'].append(annotation(103, **fields))
    assert len(build()[0]['data_samples'].gt_instances) == 1
    assert len(warnings) == 1
    assert f'annotations.json has 1 {kind.words}: object 103' in warnings[0]
    assert kind.severity == Severity.LOSES


WITHOUT_OUTLINE = [
    (Kind.NO_OUTLINE, None, ''),
    (Kind.NO_OUTLINE, [], ''),
    (Kind.NO_OUTLINE, [[]], ''),
    (Kind.RLE, {'size': [40, 60], 'counts': [3, 4]}, 'do not add up'),
    (Kind.RLE, {'size': [40, 60], 'counts': [2400]}, 'empty'),
    (Kind.RLE, {'size': [40, 60], 'counts': [2399.5, 0.5]}, 'not all whole numbers'),
    (Kind.RLE, {'size': [4, 6], 'counts': [4, 20]}, 'not of the size of the image'),
    (Kind.POLYGON, [['a', 1, 5, 5, 9, 1]], 'not a list of lists of numbers'),
    (Kind.POLYGON, 'abc', 'not a list of lists of numbers'),
    (Kind.POLYGON, [[1, 1, 5, 5]], 'under three points'),
    (Kind.POLYGON, [[1, 1], [5, 5]], 'under three points'),
    (Kind.POLYGON, [[1, 1, 5, 5, 9, 1, 7]], 'x without y: 7 numbers'),
    (Kind.POLYGON, [1, 1, 5, 5, 9, 1, 7], 'x without y: 7 numbers'),
    (Kind.POLYGON, [[1, 1, 5, 5, 9, math.nan]], 'NaN'),
    (Kind.POLYGON, [1, 1, 5, 5, 9, None], 'missing'),
    (Kind.POLYGON, [[1, 1, 5, 5, 9, 1e9]], 'far outside'),
]


@pytest.mark.parametrize(('kind', 'segmentation', 'reason'), WITHOUT_OUTLINE)
def test_object_without_a_usable_outline_trains_its_box(
    build, content: dict, warnings: list[str], kind: Kind, segmentation: object, reason: str
) -> None:
    content['annotations'].append(annotation(103, segmentation=segmentation, bbox=[30, 5, 20, 10]))
    objects = build()[0]['data_samples'].gt_instances
    assert objects.bboxes.tensor.tolist()[1] == [30, 5, 50, 15]
    assert [part.tolist() for part in objects.masks.masks[1]] == [[0] * 6]
    assert f'1 {kind.words}: object 103 on 1.png' in warnings[0] and reason in warnings[0]
    assert kind.severity == Severity.LOSES


def test_masks_need_outlines(build, content: dict) -> None:
    for entry in content['annotations']:
        entry['segmentation'] = []
    with pytest.raises(InputError, match=r'annotations\.json has no object with a usable outline'):
        build()
    boxes_only = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True}]
    assert len(build(pipeline=boxes_only)) == 2


@pytest.mark.parametrize(
    'segmentation',
    [
        [10, 10, 30, 10, 30, 30, 10, 30],
        [[10, 10], [30, 10], [30, 30], [10, 30]],
        [[[10, 10], [30, 10], [30, 30], [10, 30]]],
    ],
    ids=['flat', 'pairs', 'lists of pairs'],
)
def test_other_ways_to_write_a_polygon(content: dict, segmentation: list) -> None:
    content['annotations'] = [annotation(101, segmentation=segmentation, bbox=[])]
    reader = CocoReader(content, 'annotations.json')
    (entry,) = reader.content['annotations']
    assert ([p.tolist() for p in entry['segmentation']], entry['bbox'], reader.findings) == (
        SQUARE,
        [10, 10, 20, 20],
        [],
    )


@pytest.mark.parametrize('bbox', [[10, 10, 0, 0], [10, 10, 20, -3]])
def test_box_without_area_is_that_of_the_outline(content: dict, bbox: list) -> None:
    content['annotations'] = [annotation(101, bbox=bbox)]
    reader = CocoReader(content, 'annotations.json')
    assert reader.content['annotations'][0]['bbox'] == [10, 10, 20, 20]
    assert [finding.kind for finding in reader.findings] == [Kind.BOX]


@pytest.mark.parametrize('area', [math.inf, math.nan, -400, 1e11])
def test_impossible_area_is_computed_anew(content: dict, area: float) -> None:
    content['annotations'] = [annotation(101, area=area)]
    reader = CocoReader(content, 'annotations.json')
    assert reader.content['annotations'][0]['area'] == 400
    assert [finding.kind for finding in reader.findings] == [Kind.AREA]


@pytest.mark.parametrize('iscrowd', [0, 1])
def test_ignore_is_a_region_like_a_crowd(build, content: dict, warnings: list[str], iscrowd: int) -> None:
    content['annotations'].append(annotation(103, ignore=1, iscrowd=iscrowd))
    content['annotations'].append(annotation(104, image=2, category=3, ignore=0))
    dataset = build()
    assert [len(dataset[i]['data_samples'].gt_instances) for i in (0, 1)] == [1, 2]
    assert len(dataset[0]['data_samples'].ignored_instances) == 1
    assert warnings == ([] if iscrowd else [f'{dataset.ann_file} has 1 {Kind.IGNORED.words}: object 103 on 1.png.'])


HUGE_ID = 1_234_567_890_123_456_789


def test_ids_of_mixed_kinds_mean_the_same(build, content: dict, warnings: list[str]) -> None:
    content['categories'] = [{'id': '10', 'name': 'cat'}, {'id': 3, 'name': 'dog'}, {'id': 'x', 'name': 'bird'}]
    content['images'][0]['id'], content['images'][1]['id'] = HUGE_ID, str(HUGE_ID + 1)
    content['annotations'] = [annotation(1, str(HUGE_ID), 10), annotation(2, HUGE_ID + 1, '3')]
    dataset = build()
    assert [dataset[i]['data_samples'].gt_instances.labels.tolist() for i in (0, 1)] == [[0], [1]]
    assert [dataset[i]['data_samples'].img_id for i in (0, 1)] == [HUGE_ID, str(HUGE_ID + 1)]
    assert read_classes(dataset.ann_file) == ('dog', 'cat', 'bird')
    assert warnings == []


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_byte_order_marks(build, tmp_path: Path, encoding: str) -> None:
    build()
    path = tmp_path / 'annotations.json'
    path.write_text(path.read_text(), encoding=encoding)
    assert read_classes(str(path)) == ('dog', 'cat')


def test_one_warning_counts_each_reason(build, content: dict, warnings: list[str]) -> None:
    content['annotations'] += [annotation(200 + i, segmentation=[]) for i in range(12)]
    content['annotations'] += [annotation(300, bbox=[0, 0, 1, 0.5])]
    content['annotations'] += [annotation(400 + i, ignore=1) for i in range(20)]
    build()
    (warning,) = warnings
    assert f'12 {Kind.NO_OUTLINE.words}: object 200 on 1.png, object 201 on 1.png' in warning
    assert 'and 9 more; 1 objects whose box is under a pixel or outside the image: object 300 on 1.png; 20' in warning


def test_usable_polygons_of_an_object_stay(build, content: dict, warnings: list[str]) -> None:
    content['annotations'][0]['segmentation'] = [[1, 1, 2, 2], *SQUARE]
    masks = build()[0]['data_samples'].gt_instances.masks
    assert [polygon.tolist() for polygon in masks.masks[0]] == SQUARE
    assert '1 objects with a polygon that can not be used: object 101 on 1.png (under three points' in warnings[0]


def test_missing_file(tmp_path: Path) -> None:
    for use in (lambda path: CenterMaskCocoDataset(ann_file=path, pipeline=[]), CenterMaskCocoMetric, read_classes):
        with pytest.raises(InputError, match=r'gone\.json does not exist: correct ann_file'):
            use(str(tmp_path / 'gone.json'))
    with pytest.raises(InputError, match='could not be read: Is a directory'):
        read_classes(str(tmp_path))


REFUSED: list[tuple[Edit, str]] = [
    (lambda c: c['annotations'].insert(0, 'x'), 'entry 0 of "annotations" has no valid "image_id"'),
    (lambda c: c['annotations'].clear(), 'none of its 2 images has a usable object of the classes cat, dog'),
    (lambda c: c['images'][1].update(file_name='3.png'), r'1 of the 2 images of .* the first is .*images/3\.png'),
]


@pytest.mark.parametrize(('edit', 'message'), REFUSED, ids=range(len(REFUSED)))
def test_training_refuses_a_file_in_one_sentence(build, content: dict, edit: Edit, message: str) -> None:
    """``bad_inputs/test_bad_annotations.py`` has more."""
    edit(content)
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert 'annotations.json' in str(caught.value) and '\n' not in str(caught.value)


def test_test_images_need_no_annotations(build, content: dict, tmp_path: Path) -> None:
    del content['annotations']
    assert len(build(test_mode=True)) == 2
    path = str(tmp_path / 'annotations.json')
    with pytest.raises(InputError, match='no list "annotations"'):
        CenterMaskCocoMetric(path)
    assert CenterMaskCocoMetric(path, format_only=True, outfile_prefix=str(tmp_path / 'out')).format_only


def test_objects_with_one_id_all_train(build, content: dict) -> None:
    content['annotations'].append(annotation(101, category=3))
    assert build()[0]['data_samples'].gt_instances.labels.tolist() == [0, 1]


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


def _corners(entry: dict) -> None:
    x, y, width, height = entry['bbox']
    entry['bbox'] = [x, y, x + width, y + height]


def _parts_of_the_image(entry: dict) -> None:
    entry['bbox'] = [a / b for a, b in zip(entry['bbox'], (60, 40) * 2, strict=True)]
    entry['segmentation'] = [[a / b for a, b in zip(SQUARE[0], (60, 40) * 4, strict=True)]]
    entry['area'] = 0.17


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (_corners, '2 of 2 boxes do not fit their outlines and would as corners'),
        (_parts_of_the_image, 'its outlines are from 0 to 1 across the image'),
    ],
)
def test_other_forms_of_numbers(build, content: dict, edit: Callable, message: str) -> None:
    """Training and evaluation stop; what the check's ``--fix`` writes is in pixels, as x, y, width and height."""
    right = [(entry['bbox'], float(entry['area'])) for entry in content['annotations']]
    for entry in content['annotations']:
        edit(entry)
    with pytest.raises(RunError, match=message):
        build()
    mended = CocoReader(content, 'a.json').content['annotations']
    assert [(entry['bbox'], entry['area']) for entry in mended] == right
    assert outline_box(mended[0]['segmentation']).tolist() == right[0][0]
