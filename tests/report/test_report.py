"""The report: the test's figures, the images, the curves, on one page."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from centermask.datasets.shapes import CLASSES, make_dataset
from centermask.engine.cli import run as run_command
from centermask.report import build_report
from centermask.report.history import read_curves
from centermask.report.worst import window
from centermask.utils.errors import InputError

CONFIG = """
default_scope = 'mmdet'
load_from = 'last.pth'
test_dataloader = dict(dataset=dict(
    type='CenterMaskCocoDataset', test_mode=True, data_root={root!r}, ann_file='annotations.json',
    data_prefix=dict(img='images/'), metainfo=dict(classes={classes!r}), pipeline=[]))
"""


def _write_scalars(work_dir: Path, start: str, records: list[dict], end: str = '') -> None:
    path = work_dir / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records) + end)


def _training(step: int, loss: float = 1.0) -> dict:
    return dict(lr=1e-3, loss=loss, loss_cls=loss / 2, loss_mask=loss / 2, time=0.5, iter=step, step=step)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of shapes."""
    out = tmp_path_factory.mktemp('data') / 'shapes'
    make_dataset(out, 8, seed=7)
    return out


@pytest.fixture
def run(tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work dir of a run whose model finds every object: its masks exactly, its boxes two pixels off."""
    monkeypatch.setattr('centermask.report.build.IMAGES', 3)
    validation = {'coco/bbox_mAP': 0.6, 'coco/segm_mAP': 0.55, 'step': 0}
    _write_scalars(tmp_path, '1', [*[_training(i, 5 / i**0.5) for i in range(20, 401, 20)], validation])
    test = tmp_path / 'test'
    (test / '1').mkdir(parents=True)
    (test / 'demo.py').write_text(CONFIG.format(root=str(shapes), classes=CLASSES))
    metrics = {f'coco/{kind}_{item}': 0.61 for kind in ('bbox', 'segm') for item in ('mAP', 'mAP_50', 'mAP_75')}
    (test / '1/1.json').write_text(json.dumps(metrics | {'coco/segm_mAP': 0.543, 'coco/segm_mAP_l': -1.0}))
    truth = COCO(str(shapes / 'annotations.json'))
    masks = []
    for i, annotation in enumerate(truth.loadAnns(truth.getAnnIds(iscrowd=0))):
        rle = coco_mask.encode(np.asfortranarray(truth.annToMask(annotation)))
        x, y, w, h = annotation['bbox']
        found = dict(
            image_id=annotation['image_id'],
            category_id=annotation['category_id'],
            score=0.99 - 0.1 * (i % 10),
            bbox=[x + 2, y, w, h],
            segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
        )
        masks.append(found)
    (test / 'results.segm.json').write_text(json.dumps(masks))
    boxes = [{key: value for key, value in mask.items() if key != 'segmentation'} for mask in masks]
    (test / 'results.bbox.json').write_text(json.dumps(boxes))
    return tmp_path


class Page(HTMLParser):
    """Checks that tags match and keeps images and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open, self.images, self.text = [], [], ''
        self.feed(path.read_text())
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == 'img':
            self.images.append(dict(attrs))
        elif tag != 'meta':
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + '\n'


def _build(run: Path) -> Path:
    return build_report(run, run / 'test', run / 'report', 'make <demo>').page


def test_page(run: Path) -> None:
    (run / 'report').mkdir()
    (run / 'report/report.html').write_text('of an earlier run')
    report = build_report(run, run / 'test', run / 'report', 'make <demo>')
    assert report.ap == {'mask': 0.543, 'box': 0.61}
    assert str(report._replace(ap={'mask': -1.0})).startswith('mask AP undefined\n')
    page = Page(report.page)
    for text in ('0.543', '0.610', '–', 'make <demo>', '400 iterations', *CLASSES):  # noqa: RUF001
        assert text in page.text
    assert 'last.pth is not here any more' in page.text
    assert len(page.images) == 6 and all(image['src'].startswith('data:image/') for image in page.images)
    assert not re.search(r'(src|href)="(?!data:|#)', report.page.read_text()), 'the page needs no other file'
    files = [path for path in report.page.parent.rglob('*') if path.suffix in ('.jpg', '.png')]
    assert len(files) == 6 and all(cv2.imread(str(path)) is not None for path in files)


def test_masks_are_drawn_where_they_are(run: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two halves of an image differ in boxes alone: masks are found exactly."""
    no_legend = np.zeros((640, 0, 3), np.uint8)
    monkeypatch.setattr('centermask.structures.visualizer.draw_legend', lambda *_: no_legend)
    monkeypatch.setattr('centermask.structures.visualizer.MAX_LABELLED', 0)
    page = _build(run)  # the least score is below all
    for path in sorted(page.parent.glob('images/*.jpg')):
        drawn = cv2.imread(str(path)).astype(int)
        assert drawn.shape == (640, 640 + 8 + 640, 3)
        original = cv2.resize(cv2.imread(str(shapes / f'images/{path.stem[3:]}.jpg')), (640, 640))
        left, right = (abs(half - original).sum(2) > 60 for half in (drawn[:, :640], drawn[:, 648:]))
        assert left.mean() > 0.001
        assert (left & right).sum() > 0.9 * (left | right).sum()


def test_errors(run: Path) -> None:
    """One object has another class, one is missed."""
    results = json.loads((run / 'test/results.segm.json').read_text())
    results[0].update(category_id=results[0]['category_id'] % len(CLASSES) + 1, score=0.9)
    missed = results.pop()
    (run / 'test/results.segm.json').write_text(json.dumps(results))
    page = Page(_build(run))
    shown = [image['alt'] for image in page.images if 'pixels:' in image['alt'] or 'score 90:' in image['alt']]
    true, taken = CLASSES[(results[0]['category_id'] - 2) % len(CLASSES)], CLASSES[results[0]['category_id'] - 1]
    assert f'{taken}, score 90: is {true}' in shown[0]
    assert {text.partition(',')[0] for text in shown[1:]} == {true, CLASSES[missed['category_id'] - 1]}
    assert any(f'pixels: taken for {taken}' in text for text in shown[1:])
    assert 'not found' in page.text
    files = [*(run / 'report/images').glob('FalsePositive_*.jpg'), *(run / 'report/images').glob('Miss_*.jpg')]
    assert len(files) == 3 and all(cv2.imread(str(path)).shape[1] > 2 * 320 for path in files)


@pytest.mark.parametrize(
    ('box', 'expected'),
    [
        ((100, 50, 50, 20), (70, 0, 180, 100)),  # 110 pixels a side
        ((0, 0, 10, 10), (0, 0, 64, 64)),
        ((190, 90, 10, 10), (136, 36, 200, 100)),
        ((0, 0, 200, 100), (0, 0, 200, 100)),
    ],
)
def test_window(box: tuple, expected: tuple) -> None:
    """An error's box is in the middle of what is shown, as far as the image reaches."""
    assert window(box, (100, 200)) == expected


def test_a_detector_of_boxes_alone(run: Path) -> None:
    """FCOS alone leaves no file of masks."""
    (run / 'test/results.segm.json').unlink()
    (run / 'test/1/1.json').write_text(json.dumps({'coco/bbox_mAP': 0.4}))
    report = build_report(run, run / 'test', run / 'report', '')
    assert report.ap == {'box': 0.4}
    assert 'box AP' in Page(report.page).text


def test_no_detections_and_no_validation(run: Path) -> None:
    (run / 'test/results.segm.json').write_text('[]')
    (run / '1/vis_data/scalars.json').write_text(json.dumps(_training(20)) + '\n')
    assert '20 iterations' in Page(_build(run)).text


def test_curves_of_a_resumed_run(tmp_path: Path) -> None:
    """What it did again replaces what it did before; a line cut off by an interruption is left out."""
    first = [*[_training(i, 9.0) for i in (10, 20, 30, 40)], {'coco/bbox_mAP': 0.1, 'step': 0}]
    _write_scalars(tmp_path, '1', first, '5\n{"loss": 0.')
    _write_scalars(tmp_path, '2', [_training(30), {'coco/bbox_mAP': 0.3, 'step': 0}])
    curves = read_curves(tmp_path)
    assert curves['loss'] == {10: 9.0, 20: 9.0, 30: 1.0}
    assert curves['coco/bbox_mAP'] == {30: 0.3}


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('test/1/1.json', None, 'test holds no figures of a test: test with test_evaluator.outfile_prefix'),
        ('test/1/1.json', '[{', r'1\.json is not valid JSON'),
        ('test/results.segm.json', '[{', r'results\.segm\.json is not valid JSON'),
        ('test/results.segm.json', '{}', r'results\.segm\.json is not what a test writes: test again'),
        ('test/results.segm.json', '[5]', 'Result 1 of segm is not what a test writes: test again'),
        ('test/results.segm.json', '[{"a": 1}]', 'Result 1 of segm is not what a test writes: test again'),
        ('test/demo.py', None, 'holds no config'),
        ('test/demo.py', 'classes = 3', r'demo\.py has no test_dataloader'),
        ('1/vis_data/scalars.json', None, 'holds no .*scalars.json: name the work dir of a training run'),
        ('report/diary.txt', 'dear', 'report exists and was not made by this command'),
    ],
)
def test_bad_input(run: Path, file: str, content: str | None, message: str) -> None:
    path = run / file
    if content is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        _build(run)


def test_data_in_the_test_folder(run: Path) -> None:
    """A test on own data writes these there in COCO's format."""
    (run / 'test/data').mkdir()
    (run / 'test/data/val.json').write_text('{"images": [], "annotations": [], "categories": []}')
    assert build_report(run, run / 'test', run / 'report', 'make').ap['mask'] == 0.543


def test_command(run: Path, tools: Callable, capsys: pytest.CaptureFixture) -> None:
    assert run_command(lambda: tools('report')([str(run)])) == 0
    assert f'mask AP 0.543, box AP 0.610\nReport: {run / "report" / "report.html"}' in capsys.readouterr().out
    (run / 'test/demo.py').unlink()
    assert run_command(lambda: tools('report')([str(run)])) == 2
