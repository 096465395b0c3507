from __future__ import annotations

import base64
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from centermask.datasets.coco_annotations import CocoAnnotations
from centermask.datasets.shapes import make_dataset
from centermask.report import build_report, pictures
from centermask.report.drawing import TITLE_HEIGHT, Shown
from centermask.report.evaluation import evaluate
from centermask.report.history import read_history
from centermask.utils.errors import InputError

CONFIG = """
test_dataloader = dict(dataset=dict(
    type='CocoDataset', data_root={root!r}, ann_file='annotations.json', data_prefix=dict(img='images/')))
"""


def write_scalars(work_dir, start, records):
    path = work_dir / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))


def training(step, loss=1.0):
    parts = ('loss_cls', 'loss_bbox', 'loss_centerness', 'loss_mask', 'loss_mask_iou')
    return dict(lr=1e-3, loss=loss, **dict.fromkeys(parts, loss / 5), time=0.5, iter=step, step=step)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A small data set of shapes."""
    out = tmp_path_factory.mktemp('data') / 'shapes'
    make_dataset(out, 40, seed=7)
    return out


@pytest.fixture
def run(tmp_path, shapes):
    """The work dir of a run whose model finds every object: its masks exactly, its boxes two pixels off."""
    write_scalars(
        tmp_path,
        '20260101_000000',
        [training(i, 5 / i**0.5) for i in range(20, 201, 20)]
        + [{'coco/bbox_mAP': 0.4, 'coco/segm_mAP': 0.35, 'time': 0.1, 'step': 200}]
        + [training(i, 5 / i**0.5) for i in range(220, 401, 20)]
        + [{'coco/bbox_mAP': 0.6, 'coco/segm_mAP': 0.55, 'time': 0.1, 'step': 400}],
    )
    (tmp_path / 'shapes_demo.py').write_text(CONFIG.format(root=str(shapes)))
    truth = COCO(str(shapes / 'annotations.json'))
    masks = []
    for i, annotation in enumerate(truth.loadAnns(truth.getAnnIds(iscrowd=0))):
        rle = coco_mask.encode(np.asfortranarray(truth.annToMask(annotation)))
        x, y, w, h = annotation['bbox']
        masks.append(
            dict(
                image_id=annotation['image_id'],
                category_id=annotation['category_id'],
                score=0.99 - 0.5 * (i % 10) / 10,
                bbox=[x + 2, y, w, h],
                segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
            )
        )
    boxes = [{key: value for key, value in mask.items() if key != 'segmentation'} for mask in masks]
    (tmp_path / 'test').mkdir()
    (tmp_path / 'test' / 'results.bbox.json').write_text(json.dumps(boxes))
    (tmp_path / 'test' / 'results.segm.json').write_text(json.dumps(masks))
    return tmp_path


VOID = {'meta', 'img', 'link', 'br', 'hr', 'input'}


class Page(HTMLParser):
    """Checks that tags match and keeps images and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.images, self.text = [], [], ''
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag == 'img':
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + '\n'


def build(run):
    report = build_report(run, str(run / 'test' / 'results'), run / 'report', 'make <demo>')
    return report, Page(report.page.read_text())


def test_the_page_holds_everything(run):
    report, page = build(run)
    assert report.mask.figures['AP'] == pytest.approx(1)
    assert 0.5 < report.box.figures['AP'] < 0.95
    for text in ('1.000', f'{report.box.figures["AP"]:.3f}', 'shapes_demo.py', 'make <demo>', '400 iterations, 0.50 s'):
        assert text in page.text
    for name in ('circle', 'triangle', 'square', 'star', 'cross'):
        assert name in page.text
    assert len(page.images) == 15
    for image in page.images:
        kind, data = re.fullmatch(r'data:image/(png|jpeg);base64,(.+)', image['src']).groups()
        assert cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR) is not None, kind
        assert len(image['alt']) > 20
    assert not re.search(r'(src|href)="(?!data:)', report.page.read_text()), 'nothing comes from outside'
    assert 'loss_mask_iou from 0.224 to 0.050' in page.images[-2]['alt']
    assert 'box AP 0.600 at iteration 400' in page.images[-1]['alt']


def test_pictures_stand_beside_the_page(run):
    report, _ = build(run)
    names = sorted(str(path.relative_to(report.page.parent)) for path in report.images)
    assert [name for name in names if '/' not in name] == ['ap.png', 'ap_per_class.png', 'losses.png']
    assert sum(name.startswith('pictures/') for name in names) == 12
    for path in report.images:
        assert cv2.imread(str(path)) is not None


def test_the_same_run_shows_the_same_images(run):
    first, _ = build(run)
    before = {path.name: path.read_bytes() for path in first.images}
    again, _ = build(run)
    assert {path.name: path.read_bytes() for path in again.images} == before


def test_no_validation_during_training(run):
    scalars = run / '20260101_000000' / 'vis_data' / 'scalars.json'
    scalars.write_text(json.dumps(training(20)) + '\n')
    report, page = build(run)
    assert 'no validation during training' in page.text
    assert not (run / 'report' / 'ap.png').exists()
    assert (run / 'report' / 'losses.png') in report.images


def test_a_detector_of_boxes_alone(run, shapes):
    """What is tested for boxes only, as Table 1's FCOS alone, leaves no file of masks and needs none."""
    (run / 'shapes_demo.py').write_text(CONFIG.format(root=str(shapes)) + "test_evaluator = dict(metric=['bbox'])\n")
    (run / 'test' / 'results.segm.json').unlink()
    report, page = build(run)
    assert report.mask is None
    assert 0.5 < report.box.figures['AP'] < 0.95
    assert f'{report.box.figures["AP"]:.3f}' in page.text
    assert 'Masks' not in page.text
    assert 'Bars of box AP of each class' in page.images[-3]['alt']
    assert 'right circle 0.' in ''.join(image['alt'] for image in page.images)


def test_no_detections(run):
    for kind in ('bbox', 'segm'):
        (run / 'test' / f'results.{kind}.json').write_text('[]')
    report, page = build(run)
    assert report.box.figures['AP'] == report.mask.figures['AP'] == 0
    assert any('right nothing predicted' in image['alt'] for image in page.images)


def test_a_class_without_objects(run, shapes):
    data = json.loads((shapes / 'annotations.json').read_text())
    data['categories'].append(dict(id=9, name='unicorn'))
    (run / 'data').mkdir()
    (run / 'data' / 'annotations.json').write_text(json.dumps(data))
    (run / 'data' / 'images').symlink_to(shapes / 'images')
    (run / 'shapes_demo.py').write_text(CONFIG.format(root=str(run / 'data')))
    report, page = build(run)
    assert math.isnan(report.mask.per_class['unicorn'])
    assert report.mask.figures['AP'] == pytest.approx(1)
    assert 'unicorn' in page.text and '–' in page.text  # noqa: RUF001
    assert 'unicorn' not in page.images[0]['alt']


def test_only_the_classes_of_the_config_count(run, shapes):
    config = (
        CONFIG.format(root=str(shapes)) + "test_dataloader['dataset']['metainfo'] = dict(classes=('star', 'cross'))\n"
    )
    (run / 'shapes_demo.py').write_text(config)
    with pytest.raises(InputError, match='category'):
        build(run)
    for kind in ('bbox', 'segm'):
        path = run / 'test' / f'results.{kind}.json'
        path.write_text(json.dumps([r for r in json.loads(path.read_text()) if r['category_id'] > 3]))
    report, _ = build(run)
    assert report.mask.figures['AP'] == pytest.approx(1)
    assert list(report.mask.per_class) == ['star', 'cross']


def test_the_config_of_the_test_comes_first(run):
    (run / 'test' / 'other.py').write_text((run / 'shapes_demo.py').read_text())
    assert 'other.py' in build(run)[1].text


def test_ap_agrees_with_a_count_by_hand(shapes):
    """Half of the stars found exactly, ranked above nothing else: precision 1 up to recall 1/2."""
    truth = CocoAnnotations(str(shapes / 'annotations.json'))
    star = next(i for i, category in truth.cats.items() if category['name'] == 'star')
    stars = truth.loadAnns(truth.getAnnIds(catIds=[star], iscrowd=0))
    found = [
        dict(image_id=s['image_id'], category_id=star, score=0.9, bbox=s['bbox']) for s in stars[: len(stars) // 2]
    ]
    # 101 recall points from 0 to 1; those that are reached count 1.
    reached = sum(point / 100 <= len(found) / len(stars) + 1e-9 for point in range(101))
    assert evaluate(truth, found, 'bbox', [star]).figures['AP'] == pytest.approx(reached / 101)


def test_shown_images_have_objects_and_overlaps(shapes):
    truth = CocoAnnotations(str(shapes / 'annotations.json'))
    chosen = pictures.choose_images(truth, list(truth.cats), 12)
    assert len(set(chosen)) == 12
    assert all(truth.getAnnIds(image_id, iscrowd=0) for image_id in chosen)
    few = pictures.choose_images(truth, list(truth.cats), 3)
    for image_id in few:
        boxes = [a['bbox'] for a in truth.loadAnns(truth.getAnnIds(image_id, iscrowd=0))]
        assert any(
            a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
            for i, a in enumerate(boxes)
            for b in boxes[:i]
        )


def test_masks_are_drawn_where_they_are():
    image = np.full((50, 100, 3), 120, np.uint8)
    mask = np.zeros((50, 100), np.uint8)
    mask[10:40, 60:90] = 1
    shown = Shown(mask, (60, 10, 30, 30), (255, 0, 0), 'thing 0.90')
    pair = pictures.draw_pair(image, [], [shown])
    scale = pictures.PANEL_SIDE / 100
    left, right = pair[:, : pictures.PANEL_SIDE], pair[:, pictures.PANEL_SIDE + pictures.GAP :]
    middle = (round(25 * scale) + TITLE_HEIGHT, round(75 * scale))
    assert left[middle].tolist() == [120, 120, 120]
    np.testing.assert_allclose(right[middle], [174, 72, 72], atol=1)
    assert right[round(25 * scale) + TITLE_HEIGHT, round(30 * scale)].tolist() == [120, 120, 120]


class TestHistory:
    def test_a_resumed_run_replaces_what_it_did_again(self, tmp_path):
        write_scalars(
            tmp_path, '1', [*[training(i, 9.0) for i in (10, 20, 30, 40)], {'coco/bbox_mAP': 0.1, 'step': 40}]
        )
        write_scalars(tmp_path, '2', [*[training(i, 1.0) for i in (30, 40)], {'coco/bbox_mAP': 0.3, 'step': 40}])
        history = read_history(tmp_path)
        assert history.curve('loss') == ([10, 20, 30, 40], [9.0, 9.0, 1.0, 1.0])
        assert history.curve('coco/bbox_mAP') == ([40], [0.3])

    def test_a_run_begun_anew_leaves_nothing_of_the_longer_one(self, tmp_path):
        write_scalars(tmp_path, '1', [training(i, 9.0) for i in (10, 20, 30)])
        write_scalars(tmp_path, '2', [training(10, 1.0)])
        assert read_history(tmp_path).curve('loss') == ([10], [1.0])

    def test_validation_counted_in_epochs_lands_on_its_iteration(self, tmp_path):
        write_scalars(tmp_path, '1', [training(50), {'coco/bbox_mAP': 0.2, 'step': 1}, training(100)])
        assert read_history(tmp_path).curve('coco/bbox_mAP') == ([50], [0.2])

    def test_a_validation_made_up_for_is_of_what_was_trained_before(self, tmp_path):
        write_scalars(tmp_path, '1', [training(i) for i in (10, 20, 30, 40)])
        write_scalars(tmp_path, '2', [{'coco/bbox_mAP': 0.3, 'step': 0}, training(30)])
        assert read_history(tmp_path).curve('coco/bbox_mAP') == ([20], [0.3])
        write_scalars(tmp_path, '3', [{'coco/bbox_mAP': 0.4, 'step': 0}])
        assert read_history(tmp_path).curve('coco/bbox_mAP') == ([20, 30], [0.3, 0.4])

    def test_losses_in_the_order_of_the_log_without_their_sum(self, tmp_path):
        write_scalars(tmp_path, '1', [training(1)])
        names = ['loss_cls', 'loss_bbox', 'loss_centerness', 'loss_mask', 'loss_mask_iou']
        assert read_history(tmp_path).losses == names

    def test_a_last_line_cut_off_by_an_interruption(self, tmp_path):
        write_scalars(tmp_path, '1', [training(10)])
        with (tmp_path / '1' / 'vis_data' / 'scalars.json').open('a') as file:
            file.write('{"loss": 0.')
        assert read_history(tmp_path).curve('loss')[0] == [10]

    def test_a_file_of_something_else(self, tmp_path):
        write_scalars(tmp_path, '1', ['text', training(10)])
        with pytest.raises(InputError, match=r'scalars\.json, line 1'):
            read_history(tmp_path)


def test_a_work_dir_without_a_run(tmp_path):
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        build_report(tmp_path, str(tmp_path / 'results'), tmp_path / 'report', '')


def _mask(counts):
    return dict(image_id=1, category_id=1, score=1, segmentation=dict(size=[2, 2], counts=counts))


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('test/results.segm.json', None, r'results\.segm\.json can not be read'),
        ('test/results.segm.json', '[{', r'results\.segm\.json is not valid JSON'),
        ('test/results.bbox.json', '{}', 'must hold a list'),
        ('test/results.bbox.json', '[' * 100_000, r'results\.bbox\.json is not valid JSON'),
        ('test/results.bbox.json', [1], 'entry 0 has no valid "image_id"'),
        ('test/results.bbox.json', [dict(image_id=1, category_id=1, score='1')], 'entry 0 has no valid "score"'),
        ('test/results.bbox.json', [dict(image_id=1, category_id=1, score=1)], 'entry 0 has no valid "bbox"'),
        ('test/results.segm.json', [_mask([0, 9])], 'entry 0 has no valid "segmentation"'),
        ('test/results.segm.json', [_mask([4])], 'entry 0 is not of the size of its image'),
        ('test/results.bbox.json', [dict(image_id=777, category_id=1, bbox=[0, 0, 1, 1], score=1)], 'image 777'),
        ('test/results.bbox.json', [dict(image_id=1, category_id=99, bbox=[0, 0, 1, 1], score=1)], 'category 99'),
        ('shapes_demo.py', None, 'holds no config'),
        ('shapes_demo.py', 'classes = 3', r'shapes_demo\.py has no test_dataloader'),
        ('shapes_demo.py', CONFIG.format(root='/nowhere'), '/nowhere/annotations.json does not exist'),
        ('report/diary.txt', 'dear', 'report exists and was not made by this command'),
    ],
)
def test_bad_input_is_named(run, file, content, message):
    path = run / file
    if content is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message):
        build(run)


def test_a_missing_image_is_named(run, shapes):
    (run / 'data').mkdir()
    (run / 'data' / 'annotations.json').write_text((shapes / 'annotations.json').read_text())
    (run / 'shapes_demo.py').write_text(CONFIG.format(root=str(run / 'data')))
    with pytest.raises(InputError, match=r'images/\d+\.jpg is missing'):
        build(run)
    assert not (run / 'report').exists()


def test_the_command(run):
    tool = Path(__file__).parents[2] / 'tools' / 'report.py'
    done = subprocess.run([sys.executable, tool, run], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'mask AP 1.000' in done.stdout
    assert str(run / 'report' / 'report.html') in done.stdout
    (run / 'test' / 'results.segm.json').unlink()
    failed = subprocess.run([sys.executable, tool, run], capture_output=True, text=True)
    assert failed.returncode == 2
    assert len(failed.stderr.strip().splitlines()) == 1
    assert 'results.segm.json' in failed.stderr
