"""Matches, errors, thresholds and curves of hand-made results."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.small_coco import annotation
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from centermask.datasets.coco_annotations import CocoAnnotations
from centermask.datasets.coco_evaluation import figure
from centermask.report.confusion_matrix import confusion_table, most_confused
from centermask.report.errors import Errors, Reason, find_errors
from centermask.report.matching import Evaluation, evaluate
from centermask.report.precision_recall import curve as precision_curve
from centermask.report.score_threshold import Best, best, curve
from centermask.utils.errors import InputError

CLASSES = ('dog', 'cat')
IDS = {'cat': 3, 'dog': 7}
SIZE = 100  # pixels of both sides of the images, which are called a and b


def outline(left: float, top: float, width: float, height: float) -> list[list[float]]:
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


def wanted(image: str, name: str, *box: float, iscrowd: int = 0) -> dict:
    return dict(image=image, name=name, box=box, iscrowd=iscrowd)


def found(image: str, name: str, score: float, *box: float) -> dict:
    return dict(image=image, name=name, score=score, box=box)


def evaluated(tmp_path: Path, objects: list[dict], detections: list[dict], kind: str = 'segm') -> Evaluation:
    """Evaluate rectangles; ids of images are text and classes are not in the order of the file."""
    helper = COCO()
    helper.imgs = {name: dict(height=SIZE, width=SIZE) for name in 'ab'}

    def shape(entry: dict) -> dict:
        rle = helper.annToRLE(dict(image_id='a', segmentation=outline(*entry['box'])))
        return dict(bbox=[*entry['box']], segmentation={**rle, 'counts': rle['counts'].decode()})

    path = tmp_path / 'annotations.json'
    annotations = []
    for entry in objects:
        area = entry['box'][2] * entry['box'][3]
        fields = dict(iscrowd=entry['iscrowd'], area=area, **shape(entry))
        annotations.append(annotation(0, entry['image'], IDS[entry['name']], **fields))
    content = {
        'images': [{'id': name, 'file_name': f'{name}.jpg', 'height': SIZE, 'width': SIZE} for name in 'ab'],
        'categories': [{'id': number, 'name': name} for name, number in IDS.items()],
        'annotations': annotations,
    }
    path.write_text(json.dumps(content))
    results = [
        dict(image_id=entry['image'], category_id=IDS[entry['name']], score=entry['score'], **shape(entry))
        for entry in detections
    ]
    return evaluate(CocoAnnotations(str(path)), CLASSES, results, kind)


def reasons(errors: Errors) -> tuple[list[tuple[str, int | None]], list[tuple[str, int | None]]]:
    return tuple([(e.reason.words, e.other) for e in kind] for kind in (errors.false_positives, errors.misses))


@pytest.mark.parametrize('kind', ['segm', 'bbox'])
def test_every_reason(tmp_path: Path, kind: str) -> None:
    """Two images, both classes, and each way to be wrong once."""
    evaluation = evaluated(
        tmp_path,
        [
            wanted('a', 'cat', 10, 10, 20, 20),
            wanted('a', 'dog', 50, 10, 30, 30),
            wanted('b', 'dog', 10, 10, 40, 40),
            wanted('b', 'cat', 60, 60, 10, 10),
        ],
        [
            found('a', 'cat', 0.9, 10, 10, 20, 20),  # right
            found('a', 'cat', 0.8, 11, 10, 20, 20),  # again
            found('a', 'cat', 0.7, 50, 10, 30, 30),  # it is the dog
            found('b', 'dog', 0.6, 10, 10, 40, 15),  # of the dog, IoU 0.375
            found('b', 'cat', 0.5, 80, 80, 10, 10),  # nothing is there
            found('b', 'cat', 0.2, 60, 60, 10, 10),  # right, below the threshold
        ],
        kind,
    )
    errors = find_errors(evaluation, 0.5)
    false, missed = reasons(errors)
    assert false == [('duplicate', None), ('wrong class', 0), ('poor localisation', None), ('background', None)]
    assert missed == [('poor localisation', None), ('wrong class', 1), ('not found', None)]  # by area
    # Rows and columns: dog, cat, background.
    assert errors.confusion.tolist() == [[0, 1, 1], [0, 1, 1], [1, 2, 0]]
    assert most_confused(errors.confusion, CLASSES, 5) == [['dog', 'cat', '1', '50%']]
    table = confusion_table(errors.confusion, ('<dog>', 'cat'))
    assert '<td class="shade" style="--v:0.50" title="&lt;dog&gt; as cat: 1">1</td>' in table
    lower = find_errors(evaluation, 0.2)
    assert reasons(lower)[1] == missed[:2] and lower.confusion[1].tolist() == [0, 2, 0]


def test_ignored_regions(tmp_path: Path) -> None:
    """A crowd is no object, and takes any number of detections of its class, none of another."""
    crowd = wanted('a', 'cat', 0, 0, 60, 60, iscrowd=1)
    inside = [found('a', 'cat', score, 10 * i, 10, 10, 10) for i, score in enumerate((0.9, 0.8, 0.7))]
    evaluation = evaluated(tmp_path, [crowd], [*inside, found('a', 'dog', 0.6, 10, 10, 10, 10)])
    errors = find_errors(evaluation, 0.1)
    assert reasons(errors) == ([('background', None)], [])
    assert errors.confusion.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert curve(evaluation) is None and best(None) is None


def test_an_object_is_confused_once(tmp_path: Path) -> None:
    """Of two wrong detections on an object the surer one is its confusion; found objects have none."""
    evaluation = evaluated(
        tmp_path,
        [wanted('a', 'dog', 10, 10, 20, 20), wanted('b', 'dog', 10, 10, 20, 20)],
        [
            found('a', 'cat', 0.6, 10, 10, 20, 20),
            found('a', 'cat', 0.9, 12, 10, 20, 20),
            found('b', 'cat', 0.9, 10, 10, 20, 20),
            found('b', 'dog', 0.5, 10, 10, 20, 20),
        ],
    )
    errors = find_errors(evaluation, 0.5)
    assert errors.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 2, 0]]
    assert {error.reason for error in errors.false_positives} == {Reason.CLASS}
    assert reasons(errors)[1] == [('wrong class', 1)]


def test_thresholds(tmp_path: Path) -> None:
    """Right at 0.9 and 0.6, wrong at 0.7 and 0.3; one dog is never found."""
    evaluation = evaluated(
        tmp_path,
        [wanted('a', 'cat', 10, 10, 20, 20), wanted('b', 'cat', 10, 10, 20, 20), wanted('b', 'dog', 50, 50, 20, 20)],
        [
            found('a', 'cat', 0.9, 10, 10, 20, 20),
            found('a', 'cat', 0.7, 70, 70, 20, 20),
            found('b', 'cat', 0.6, 10, 10, 20, 20),
            found('b', 'cat', 0.3, 70, 10, 20, 20),
        ],
    )
    whole = curve(evaluation)
    at = {score: tuple(round(float(values[round(100 * score)]), 3) for values in whole) for score in (0.2, 0.5, 0.8, 1)}
    assert at == {0.2: (0.5, 0.667, 0.571), 0.5: (0.667, 0.667, 0.667), 0.8: (1, 0.333, 0.5), 1: (1, 0, 0)}
    assert best(whole) == Best(0.46, 2 / 3, 2 / 3, 2 / 3)  # the middle of 0.31 to 0.6
    assert best(curve(evaluation, 1)).f1 == pytest.approx(0.8)
    assert not curve(evaluation, 0).f1.any() and best(curve(evaluation, 0)) is None


@pytest.mark.parametrize('detected', [True, False])
def test_curves_and_ap_are_pycocotools_own(tmp_path: Path, detected: bool) -> None:
    rng = np.random.default_rng(0)
    boxes = [(*rng.uniform(0, 60, 2), *rng.uniform(5, 40, 2)) for _ in range(40)]
    names = [str(rng.choice(CLASSES)) for _ in boxes]
    objects = [wanted('ab'[i % 2], name, *box) for i, (name, box) in enumerate(zip(names, boxes, strict=True))]
    near = [np.array(box) * rng.uniform(0.85, 1.15, 4) for box in boxes]
    detections = [
        found('ab'[i % 2], name, rng.uniform(), *box) for i, (name, box) in enumerate(zip(names, near, strict=True))
    ]
    evaluation = evaluated(tmp_path, objects, detections if detected else [])
    own = COCOeval(evaluation.truth, evaluation.detected, 'segm')
    own.evaluate()
    own.accumulate()
    own.summarize()
    items = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l']
    assert [figure(evaluation.coco, item, evaluation.max_dets) for item in items] == pytest.approx(own.stats[:6])
    assert own.stats[5] == -1  # no object is large
    assert precision_curve(evaluation).mean() == pytest.approx(own.stats[0])
    np.testing.assert_array_equal(precision_curve(evaluation, 0.75, 1), own.eval['precision'][5, :, 1, 0, -1])


def test_results_of_other_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'results of the test are of other data: .*annotations\.json has no image c'):
        evaluated(tmp_path, [], [found('c', 'cat', 0.9, 10, 10, 20, 20)])
