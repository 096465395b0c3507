"""COCO data: what is completed, what is left out, what ends the run before it starts, and the order of classes."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image
from torch.utils.data import DataLoader

from centermask.datasets import CenterMaskCocoDataset, CenterMaskCocoMetric, read_classes
from centermask.datasets.coco import check_images_exist
from centermask.errors import InputError, RunError, sentence

PIPELINE = [
    {'type': 'LoadImageFromFile'},
    {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True, 'poly2mask': False},
    {'type': 'PackDetInputs'},
]
SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]
Edit = Callable[[dict], None]


def annotation(number: int, image: int = 1, category: int = 7, **fields: object) -> dict:
    """A 20 x 20 square, but for what ``fields`` say."""
    square = {'segmentation': SQUARE, 'bbox': [10, 10, 20, 20], 'area': 400, 'iscrowd': 0}
    return {'id': number, 'image_id': image, 'category_id': category, **square, **fields}


@pytest.fixture
def content() -> dict:
    """Two images; a cat (category 7) on the first and a dog (3) on the second. The file lists the cat first."""
    return {
        'categories': [{'id': 7, 'name': 'cat'}, {'id': 3, 'name': 'dog'}],
        'images': [{'id': i, 'file_name': f'{i}.png', 'width': 60, 'height': 40} for i in (1, 2)],
        'annotations': [annotation(101), annotation(102, image=2, category=3)],
    }


@pytest.fixture
def build(tmp_path: Path, content: dict) -> Callable[..., CenterMaskCocoDataset]:
    """Write ``content`` and its images, and read them as the data set of a config would be."""

    def build(classes: tuple[str, ...] = ('cat', 'dog'), **arguments: object) -> CenterMaskCocoDataset:
        (tmp_path / 'images').mkdir(exist_ok=True)
        for name in ('1.png', '2.png'):
            Image.new('RGB', (60, 40)).save(tmp_path / 'images' / name)
        (tmp_path / 'annotations.json').write_text(json.dumps(content))
        config = {
            'type': 'CenterMaskCocoDataset',
            'data_root': str(tmp_path),
            'ann_file': 'annotations.json',
            'data_prefix': {'img': 'images/'},
            'metainfo': {'classes': classes},
            'filter_cfg': {'filter_empty_gt': True},
            'pipeline': PIPELINE,
            **arguments,
        }
        return DATASETS.build(config)

    return build


@pytest.fixture
def warnings() -> list[str]:
    """Messages of the warnings that MMEngine's logger is given."""
    messages: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, keeper = MMLogger.get_current_instance(), Keeper(logging.WARNING)
    logger.addHandler(keeper)
    yield messages
    logger.removeHandler(keeper)


def rle(compressed: bool) -> dict:
    """The 20 x 20 square at (10, 10) in 60 x 40."""
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:30] = 1
    if compressed:
        encoded = mask_utils.encode(np.asfortranarray(mask))
        return {'size': encoded['size'], 'counts': encoded['counts'].decode()}
    flat = mask.T.reshape(-1)
    return {'size': [40, 60], 'counts': np.diff([0, *np.flatnonzero(np.diff(flat, prepend=0)), flat.size]).tolist()}


# What is completed


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


@pytest.mark.parametrize('compressed', [True, False])
def test_object_given_as_rle_trains_like_a_polygon(build, content: dict, compressed: bool) -> None:
    content['annotations'][0]['segmentation'] = rle(compressed)
    gt = build()[0]['data_samples'].gt_instances
    assert gt.labels.tolist() == [0]
    (polygon,) = gt.masks.masks[0]
    drawn = mask_utils.decode(mask_utils.frPyObjects([polygon], 40, 60))[..., 0]
    assert np.array_equal(drawn, mask_utils.decode(mask_utils.frPyObjects(rle(False), 40, 60)))


@pytest.mark.parametrize('segmentation', [rle(True), rle(False), SQUARE, None], ids=['rle', 'plain', 'polygon', 'none'])
def test_crowd_is_ignored(build, content: dict, warnings: list[str], segmentation: object) -> None:
    content['annotations'].append(annotation(103, iscrowd=1, segmentation=segmentation))
    sample = build()[0]['data_samples']
    assert len(sample.gt_instances) == 1
    assert len(sample.ignored_instances) == 1
    assert warnings == []


def test_polygons_are_floats_though_the_file_has_integers(build) -> None:
    """MMDetection scales polygons in place of their type: integers would lose their fractions."""
    masks = build()[0]['data_samples'].gt_instances.masks
    assert masks.masks[0][0].dtype == np.float64
    assert masks.resize((41, 61)).masks[0][0][0] == pytest.approx(10 * 61 / 60)


def test_images_without_objects_are_left_out_of_training_only(build, content: dict) -> None:
    content['annotations'] = [annotation(101), annotation(102, image=2, iscrowd=1)]
    assert len(build()) == 1
    assert len(build(filter_cfg={'filter_empty_gt': False})) == 2
    assert len(build(test_mode=True)) == 2


def test_real_photographs(shared: Path) -> None:
    """Five of the six have objects; one object among them is a crowd."""
    dataset = CenterMaskCocoDataset(
        data_root=str(shared / 'data' / 'coco6'),
        ann_file='instances.json',
        data_prefix={'img': 'images/'},
        filter_cfg={'filter_empty_gt': True},
        pipeline=PIPELINE,
    )
    content = json.loads((shared / 'data' / 'coco6' / 'instances.json').read_text())
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    assert len(samples) == 5
    assert sum(len(sample.gt_instances) for sample in samples) == len(content['annotations']) - 1
    assert sum(len(sample.ignored_instances) for sample in samples) == 1


# What is left out


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


def test_classes_that_the_config_does_not_name_are_left_out_silently(build, warnings: list[str]) -> None:
    dataset = build(classes=('dog',))
    assert len(dataset) == 1
    assert dataset[0]['data_samples'].gt_instances.labels.tolist() == [0]
    assert warnings == []


# What ends the run before it starts


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


def test_class_that_the_data_lacks(build) -> None:
    with pytest.raises(InputError, match=r'annotations\.json has no category bird, only cat, dog'):
        build(classes=('dog', 'bird'))


def test_class_written_without_a_tuple(build) -> None:
    with pytest.raises(InputError, match=r"the text 'cat': write a tuple of names, \('cat',\)"):
        build(classes='cat')


def test_test_images_need_no_annotations(build, content: dict, tmp_path: Path) -> None:
    del content['annotations']
    assert len(build(test_mode=True)) == 2
    path = str(tmp_path / 'annotations.json')
    with pytest.raises(InputError, match='no list "annotations"'):
        CenterMaskCocoMetric(path)
    assert CenterMaskCocoMetric(path, format_only=True, outfile_prefix=str(tmp_path / 'out')).format_only


def test_missing_images_are_counted(tmp_path: Path) -> None:
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / '1.jpg').touch()
    here = str(tmp_path / 'a' / '1.jpg')
    check_images_exist([here], 'x.json')
    gone = [str(tmp_path / 'a' / '2.jpg'), str(tmp_path / 'b' / '1.jpg')]
    with pytest.raises(InputError, match=r'2 of the 3 images of x\.json are missing, the first is .*a/2\.jpg'):
        check_images_exist([here, *gone], 'x.json')


def test_more_classes_than_colours(build, content: dict) -> None:
    content['categories'] += [{'id': 100 + i, 'name': f'class {i}'} for i in range(90)]
    dataset = build(classes=tuple(category['name'] for category in content['categories']))
    assert dataset.metainfo['palette'] == 'random'


# What ends the run


@pytest.mark.parametrize(('bytes_left', 'workers'), [(0, 0), (40, 0), (40, 1)])
def test_unreadable_image_ends_the_run(build, tmp_path: Path, bytes_left: int, workers: int) -> None:
    dataset = build()
    path = tmp_path / 'images' / '2.png'
    path.write_bytes(path.read_bytes()[:bytes_left])
    with pytest.raises(RunError) as caught:
        list(DataLoader(dataset, batch_size=None, num_workers=workers))
    assert sentence(caught.value) == (
        f'The image {path} could not be read (it is damaged or not an image): '
        'replace it or take it out of the annotation file.'
    )


def test_image_gone_or_replaced_ends_the_run(build, tmp_path: Path) -> None:
    dataset = build(test_mode=True)
    Image.new('RGB', (30, 20)).save(tmp_path / 'images' / '1.png')
    with pytest.raises(RunError, match=r'1\.png is 30x20 pixels but .*annotations\.json says 60x40'):
        dataset[0]
    (tmp_path / 'images' / '1.png').unlink()
    with pytest.raises(RunError, match=r'1\.png could not be read \(No such file or directory\)'):
        dataset[0]


def test_other_errors_of_a_pipeline_stay_as_they_are(build) -> None:
    dataset = build(pipeline=[{'type': 'LoadImageFromFile'}, lambda results: results['nothing']])
    with pytest.raises(KeyError, match='nothing'):
        dataset[0]


# The order of classes


@pytest.mark.parametrize('classes', [('cat', 'dog'), ('dog', 'cat')])
def test_labels_follow_the_config(build, classes: tuple[str, ...]) -> None:
    dataset = build(classes=classes)
    labels = [dataset[i]['data_samples'].gt_instances.labels.item() for i in range(2)]
    assert [classes[label] for label in labels] == ['cat', 'dog']


def evaluate(
    path: Path, classes: tuple[str, ...], found: dict[str, str | None], **arguments: object
) -> dict[str, float]:
    """Evaluate a detector that outlines both objects rightly and calls them as ``found`` says, None for not at all."""
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 10:30, 10:30] = True
    metric = METRICS.build(
        {
            'type': 'CenterMaskCocoMetric',
            'ann_file': str(path),
            'metric': ['bbox', 'segm'],
            'classwise': True,
            **arguments,
        }
    )
    metric.dataset_meta = {'classes': classes}
    for image, name in ((1, 'cat'), (2, 'dog')):
        called = found[name]
        instances = {
            'bboxes': torch.tensor([[10.0, 10, 30, 30]]),
            'scores': torch.tensor([0.9]),
            'labels': torch.tensor([classes.index(called) if called else 0]),
            'masks': torch.from_numpy(mask),
        }
        if called is None:
            instances = {key: value[:0] for key, value in instances.items()}
        metric.process({}, [{'pred_instances': instances, 'img_id': image, 'ori_shape': (40, 60)}])
    return metric.evaluate(2)


@pytest.mark.parametrize('classes', [('cat', 'dog'), ('dog', 'cat')])
def test_ap_does_not_depend_on_the_order_of_classes(build, tmp_path: Path, classes: tuple[str, ...]) -> None:
    build()
    path = tmp_path / 'annotations.json'
    right = evaluate(path, classes, {'cat': 'cat', 'dog': 'dog'})
    assert right['coco/bbox_mAP'] == right['coco/segm_mAP'] == 1
    assert evaluate(path, classes, {'cat': 'dog', 'dog': 'cat'})['coco/segm_mAP'] == 0
    # Only the cat is found: both names on the file's order, not on the ids' order, would give its AP to the dog.
    half = evaluate(path, classes, {'cat': 'cat', 'dog': 'cat'})
    assert half['coco/cat_precision'] > 0.4
    assert half['coco/dog_precision'] == 0


@pytest.mark.parametrize('ids', [(0, 1), ('a', 'b')])
def test_ap_of_annotations_with_any_ids(build, content: dict, tmp_path: Path, ids: tuple) -> None:
    """COCO's own evaluation never finds an object with the id 0, and knows numbers only."""
    for fields, number in zip(content['annotations'], ids, strict=True):
        fields['id'] = number
    build()
    scores = evaluate(tmp_path / 'annotations.json', ('cat', 'dog'), {'cat': 'cat', 'dog': 'dog'})
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP'] == 1


def test_ids_written_are_the_files(build, tmp_path: Path) -> None:
    build()
    prefix = str(tmp_path / 'out')
    evaluate(
        tmp_path / 'annotations.json',
        ('dog', 'cat'),
        {'cat': 'cat', 'dog': 'dog'},
        format_only=True,
        outfile_prefix=prefix,
    )
    written = json.loads(Path(f'{prefix}.segm.json').read_text())
    assert [(entry['image_id'], entry['category_id']) for entry in written] == [(1, 7), (2, 3)]


def test_ap_where_nothing_is_detected_is_0(build, tmp_path: Path) -> None:
    build()
    scores = evaluate(tmp_path / 'annotations.json', ('cat', 'dog'), {'cat': None, 'dog': None})
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP'] == 0


def test_metric_of_other_images(build, content: dict, tmp_path: Path) -> None:
    content['images'][1]['id'] = 9
    content['annotations'] = [fields for fields in content['annotations'] if fields['image_id'] != 2]
    build()
    with pytest.raises(InputError, match=r'annotations\.json has no image with the id 2, which was tested'):
        evaluate(tmp_path / 'annotations.json', ('cat', 'dog'), {'cat': 'cat', 'dog': 'dog'})


def test_metric_takes_what_the_data_set_takes(build, content: dict, tmp_path: Path) -> None:
    for fields in content['annotations']:
        del fields['area'], fields['iscrowd']
    content['annotations'] += [
        annotation(103, segmentation=[]),
        annotation(104, segmentation=[[1, 1, 2, 2]]),
        annotation(105, iscrowd=1, segmentation=None, bbox=[30, 30, 5, 5]),
        annotation(106, iscrowd=1, segmentation=rle(False)),
    ]
    build()
    scores = evaluate(tmp_path / 'annotations.json', ('cat', 'dog'), {'cat': 'cat', 'dog': 'dog'})
    assert scores['coco/segm_mAP'] == 1


# Classes from the annotation file


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
