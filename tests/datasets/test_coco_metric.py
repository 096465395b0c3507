"""AP whatever the order of classes and whatever the ids."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_coco import annotation, rle
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from centermask.datasets import CenterMaskCocoMetric
from centermask.utils.errors import InputError


def evaluate(
    path: Path, classes: tuple[str, ...], found: dict[str, str | None], **arguments: object
) -> dict[str, float]:
    """Evaluate a detector that outlines both objects rightly and labels them by ``found``, None for not detected."""
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 10:30, 10:30] = True
    images = [image['id'] for image in json.loads(path.read_text())['images']]
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
    for image, name in zip(images, ('cat', 'dog'), strict=True):
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
    assert half['coco/bbox_cat_precision'] > 0.4 and half['coco/segm_cat_precision'] > 0.4
    assert half['coco/bbox_dog_precision'] == half['coco/segm_dog_precision'] == 0


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


def test_metric_of_other_images(build, tmp_path: Path) -> None:
    build()
    metric = CenterMaskCocoMetric(str(tmp_path / 'annotations.json'))
    metric.dataset_meta = {'classes': ('cat', 'dog')}
    metric.process({}, [_sample(9, np.zeros((0, 4)), [])])
    with pytest.raises(InputError, match=r'annotations\.json has no image with the id 9, which was tested'):
        metric.evaluate(1)


def test_metric_takes_what_the_data_set_takes(build, content: dict, tmp_path: Path) -> None:
    for fields in content['annotations']:
        del fields['area'], fields['iscrowd']
    content['annotations'] += [
        annotation(105, iscrowd=1, segmentation=None, bbox=[30, 30, 5, 5]),
        annotation(106, iscrowd=1, segmentation=rle(False)),
        annotation(107, segmentation=None, bbox=None),
    ]
    build()
    scores = evaluate(tmp_path / 'annotations.json', ('cat', 'dog'), {'cat': 'cat', 'dog': 'dog'})
    assert scores['coco/segm_mAP'] == 1


def test_ids_of_text_and_of_19_digits(build, content: dict, tmp_path: Path) -> None:
    """pycocotools takes text for a list of ids, and NumPy makes one of two ids that differ in their last digits."""
    content['categories'] = [{'id': 'cat-7', 'name': 'cat'}, {'id': 2**63 + 1, 'name': 'dog'}]
    content['images'][0]['id'], content['images'][1]['id'] = 1234567890123456789, 1234567890123456788
    content['annotations'] = [
        annotation(1, 1234567890123456789, 'cat-7'),
        annotation(2, 1234567890123456788, 2**63 + 1),
    ]
    build()
    path, prefix = tmp_path / 'annotations.json', str(tmp_path / 'out')
    scores = evaluate(path, ('dog', 'cat'), {'cat': 'cat', 'dog': 'dog'}, outfile_prefix=prefix)
    assert scores['coco/segm_mAP'] == scores['coco/bbox_cat_precision'] == scores['coco/segm_dog_precision'] == 1
    written = json.loads(Path(f'{prefix}.bbox.json').read_text())
    expected = [(1234567890123456789, 'cat-7'), (1234567890123456788, 2**63 + 1)]
    assert [(entry['image_id'], entry['category_id']) for entry in written] == expected


def _sample(image: int, boxes: np.ndarray, scores: list[float]) -> dict:
    """Return detections of class 0 that fill their boxes, in an image of 60 x 40 pixels."""
    masks = np.zeros((len(boxes), 40, 60), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    found = {
        'bboxes': torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        'scores': torch.tensor(scores),
        'labels': torch.zeros(len(boxes), dtype=torch.long),
        'masks': torch.from_numpy(masks),
    }
    return {'pred_instances': found, 'img_id': image, 'ori_shape': (40, 60)}


def _random_boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    corners = np.stack([rng.integers(0, 45, number), rng.integers(0, 25, number)], axis=1)
    return np.concatenate([corners, corners + rng.integers(4, 15, (number, 2))], axis=1).astype(float)


@pytest.mark.parametrize('without', ['an outline', 'a usable polygon', 'nothing'])
def test_ap_is_that_of_pycocotools_on_the_file(build, content: dict, tmp_path: Path, without: str) -> None:
    rng = np.random.default_rng(3)
    content['annotations'], samples = [], []
    for image in (1, 2):
        boxes = _random_boxes(rng, 12)
        for x1, y1, x2, y2 in boxes:
            entry = annotation(len(content['annotations']) + 1, image, 7, bbox=[x1, y1, x2 - x1, y2 - y1])
            entry.update(segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]], area=(x2 - x1) * (y2 - y1))
            if entry['id'] % 2 and without != 'nothing':
                entry['segmentation'] = [] if without == 'an outline' else [[x1, y1, x2, y2]]
            content['annotations'].append(entry)
        found = np.concatenate([boxes[:9] + rng.integers(0, 2, (9, 4)), _random_boxes(rng, 4)])
        samples.append(_sample(image, found, rng.random(13).tolist()))
    build()
    path, prefix = str(tmp_path / 'annotations.json'), str(tmp_path / 'out')
    metric = CenterMaskCocoMetric(path, ['bbox', 'segm'], outfile_prefix=prefix)
    metric.dataset_meta = {'classes': ('cat', 'dog')}
    metric.process({}, samples)
    scores = metric.evaluate(2)

    for kind in ('bbox', 'segm') if without == 'nothing' else ('bbox',):
        truth, found = COCO(path), json.loads(Path(f'{prefix}.{kind}.json').read_text())
        if kind == 'segm':
            found = [{key: value for key, value in entry.items() if key != 'bbox'} for entry in found]
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        expected = evaluation.stats[[0, 1, 2, 3, 4, 5, 8]]
        assert 0.1 < expected[0] < 0.9
        assert [value for name, value in scores.items() if kind in name] == pytest.approx(expected, abs=6e-4)


def test_masks_of_objects_without_an_outline_are_ignored(build, content: dict, tmp_path: Path) -> None:
    """Neither finding nor missing one changes mask AP; in box AP it is an object."""
    content['annotations'] = [
        annotation(1),
        annotation(2, segmentation=[], bbox=[40, 5, 15, 15]),
        annotation(3, image=2, segmentation=[], bbox=[40, 5, 15, 15]),
    ]
    build()
    metric = CenterMaskCocoMetric(str(tmp_path / 'annotations.json'), ['bbox', 'segm'])
    metric.dataset_meta = {'classes': ('cat', 'dog')}
    metric.process({}, [_sample(1, np.array([[40, 7, 55, 20], [10, 10, 30, 30]]), [0.9, 0.8])])
    metric.process({}, [_sample(2, np.zeros((0, 4)), [])])
    scores = metric.evaluate(2)
    assert scores['coco/segm_mAP'] == 1
    assert scores['coco/bbox_AR@100'] == pytest.approx((1 + 8 / 10) / 3, abs=6e-4)  # the IoU of the second is 0.87


def test_ignored_objects_are_regions(build, content: dict, tmp_path: Path) -> None:
    content['annotations'] += [annotation(103, ignore=1, bbox=[30, 0, 30, 40], segmentation=[])]
    build()
    metric = CenterMaskCocoMetric(str(tmp_path / 'annotations.json'), ['bbox', 'segm'])
    metric.dataset_meta = {'classes': ('cat', 'dog')}
    metric.process({}, [_sample(1, np.array([[40, 7, 55, 20], [35, 2, 45, 9], [10, 10, 30, 30]]), [0.9, 0.8, 0.7])])
    metric.process({}, [_sample(2, np.zeros((0, 4)), [])])
    scores = metric.evaluate(2)
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP'] == 0.5  # the dog isn't found


@pytest.mark.parametrize('area', [math.inf, math.nan, -1, 1e12])
def test_impossible_areas_do_not_take_objects_out_of_ap(build, content: dict, tmp_path: Path, area: float) -> None:
    for entry in content['annotations']:
        entry['area'] = area
    build()
    scores = evaluate(tmp_path / 'annotations.json', ('cat', 'dog'), {'cat': 'cat', 'dog': 'dog'})
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP_s'] == 1


@pytest.mark.parametrize(('max_dets', 'before'), [(100, 120), (150, 120), (400, 300)])
def test_all_figures_are_of_one_number_of_detections(
    build, content: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_dets: int, before: int
) -> None:
    """The cat is the 121st detection: MMDetection's AP is 0, and its AP50 isn't.

    pycocotools 2.0.11 fails on the areas of 256 masks at once.
    """
    content['annotations'] = [annotation(1)]
    build()
    lines: list[str] = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'info', lines.append)
    boxes = np.concatenate([np.tile([[40.0, 5, 45, 10]], (before, 1)), [[10, 10, 30, 30]]])
    metric = CenterMaskCocoMetric(str(tmp_path / 'annotations.json'), ['bbox', 'segm'])
    metric.dataset_meta = {'classes': ('cat', 'dog')}
    metric.max_dets = max_dets
    metric.process({}, [_sample(1, boxes, [0.9] * before + [0.5])])
    scores = metric.evaluate(1)
    for kind in ('bbox', 'segm'):
        figures = [scores[f'coco/{kind}_{item}'] for item in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s')]
        assert figures == [pytest.approx(1 / (before + 1), abs=6e-4)] * 4
        assert scores[f'coco/{kind}_AR@100'] == 0
    assert [line.split(' (maxDets)')[0] for line in lines] == [
        f'AP of at most {max(max_dets, before + 1)} detections an image and class'
    ] * 2


def test_truth_without_objects_is_announced(build, content: dict, tmp_path: Path, warnings: list[str]) -> None:
    content['annotations'] = [annotation(1, iscrowd=1)]
    build(test_mode=True)
    scores = evaluate(tmp_path / 'annotations.json', ('cat', 'dog'), {'cat': 'cat', 'dog': 'dog'})
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP_50'] == -1
    assert 'annotations.json has no objects to evaluate on: AP and recall will be undefined' in warnings[-1]
    content['annotations'] = [annotation(1, segmentation=[])]
    build(test_mode=True)
    scores = evaluate(tmp_path / 'annotations.json', ('cat', 'dog'), {'cat': 'cat', 'dog': 'dog'})
    assert (scores['coco/bbox_mAP_50'], scores['coco/segm_mAP_50']) == (1, -1)
    assert 'annotations.json has no outlines to evaluate on: AP and recall of masks will be undefined' in warnings[-1]


@pytest.mark.parametrize('several_processes', [False, True])
def test_metric_items_and_processes(build, tmp_path: Path, several_processes: bool) -> None:
    build()
    items = ['mAP_50', 'AR@1', 'AR_s@1000', 'AR_l@1000']
    found = {'cat': 'cat', 'dog': 'dog'}
    scores = evaluate(
        tmp_path / 'annotations.json', ('cat', 'dog'), found, metric_items=items, classwise=False,
        use_mp_eval=several_processes,
    )  # fmt: skip
    expected = {'mAP_50': 1, 'AR@1': 1, 'AR_s@1000': 1, 'AR_l@1000': -1}
    assert scores == {f'coco/{kind}_{item}': value for kind in ('bbox', 'segm') for item, value in expected.items()}


def test_limits_of_detections_are_not_for_a_config(build, tmp_path: Path) -> None:
    build()
    with pytest.raises(ValueError, match=r'where the model.s test_cfg\.max_per_img is higher'):
        CenterMaskCocoMetric(str(tmp_path / 'annotations.json'), proposal_nums=(1, 10, 100))
