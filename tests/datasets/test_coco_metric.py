"""AP whatever the order of classes and whatever the ids."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_coco import annotation, rle
from mmdet.registry import METRICS

from centermask.utils.errors import InputError


def evaluate(
    path: Path, classes: tuple[str, ...], found: dict[str, str | None], **arguments: object
) -> dict[str, float]:
    """Evaluate a detector that outlines both objects rightly and labels them by ``found``, None for not detected."""
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
