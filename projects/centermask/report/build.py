"""Put a run's figures, curves and images together on one page."""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from centermask.engine.configs import load_config
from centermask.report import html
from centermask.report.class_table import ITEMS, class_head, class_rows
from centermask.report.confusion_matrix import confusion_table, most_confused
from centermask.report.drawing import Canvas
from centermask.report.errors import Errors, Reason, find_errors
from centermask.report.history import Curves, draw_curves, read_curves
from centermask.report.matching import KINDS, MATCH_IOU, PLURALS, Evaluation, evaluate
from centermask.report.precision_recall import draw_precision_recall
from centermask.report.score_threshold import Best, best, curve, draw_thresholds
from centermask.report.side_by_side import draw_pairs
from centermask.report.speed import measure_speed, tested_file
from centermask.report.test_images import TestImages
from centermask.report.worst import draw_worst
from centermask.utils.atomic_io import atomic_folder
from centermask.utils.errors import InputError

PAGE_NAME = 'report.html'
IMAGES = 12  # of ground truth beside predictions
TIMED = 5  # images
CONFUSED = 15  # pairs of classes
LEAST_SCORE = 0.4  # where no threshold is best
SIDES, PART_SIDES = (640, 1000), (320, 320)  # pixels of the longer side of whole images and of parts of them
FIGURES = {**ITEMS, 'recall at 100': 'AR@100'}


class Report(NamedTuple):
    """The page of :func:`build_report`, and ``mask`` and ``box`` AP where they were tested."""

    page: Path
    ap: dict[str, float]

    def __str__(self) -> str:
        values = {kind: f'{value:.3f}' if value >= 0 else 'undefined' for kind, value in self.ap.items()}
        figures = ', '.join(f'{kind} AP {value}' for kind, value in values.items())
        return f'{figures}\nReport: {self.page}'


def report_options(test_dir: Path) -> dict[str, Any]:
    """Return the config's options under which a test leaves what the report needs in its work folder."""
    return {'test_evaluator.outfile_prefix': f'{test_dir}/results', 'test_evaluator.classwise': True}


def build_report(work_dir: Path, test_dir: Path, out: Path, command: str) -> Report:
    """Write ``report.html`` and its images about a run on any data set in COCO format.

    Args:
        work_dir: of the training, whose scalars give the curves.
        test_dir: of a test with :func:`report_options`, whose config names the data and the checkpoint.
        out: folder to write; an existing report is replaced.
        command: the command line, shown in the report.

    Raises:
        InputError: a file is missing, or ``out`` can't be written.
    """
    curves = read_curves(work_dir)
    figures = sorted(path for path in test_dir.glob('*/*.json') if path.stem == path.parent.name)  # times of tests
    files = {kind: path for kind in KINDS if (path := test_dir / f'results.{kind}.json').is_file()}
    if not figures or not files:
        raise InputError(
            f'{test_dir} holds no {"results.bbox.json" if figures else "figures of a test"}: test with '
            'test_evaluator.outfile_prefix=DIR/results and --work-dir DIR first.'
        )
    configs = sorted(test_dir.glob('*.py'), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise InputError(f'{test_dir} holds no config (*.py): name the work dir of a test.')
    metrics = _read_json(figures[-1], dict)
    results = {kind: _read_json(path, list) for kind, path in files.items()}
    cfg = load_config(configs[-1])
    images = TestImages(cfg)
    ap = {kind: metrics[key] for name, kind in KINDS.items() if (key := f'coco/{name}_mAP') in metrics}
    with atomic_folder(out, lambda folder: (folder / PAGE_NAME).exists()) as folder:
        (folder / 'images').mkdir()
        evaluations = [evaluate(images.annotations, images.classes, found, kind) for kind, found in results.items()]
        parts = _evaluated(images, evaluations, folder) | {
            'title': escape(configs[-1].stem),
            'figures': html.table(['', *FIGURES], [[kind, *_figures(metrics, name)] for name, kind in KINDS.items()]),
            'facts': html.table(['', ''], _facts(cfg, images, curves, command) + _panoptic_figures(metrics)),
            'curves': html.image(draw_curves(curves, folder / 'curves.png'), 'Losses and AP over iterations'),
        }
        template = Template(Path(__file__).with_name('page.html').read_text(encoding='utf-8'))
        (folder / PAGE_NAME).write_text(template.substitute(parts), encoding='utf-8')
    return Report(out / PAGE_NAME, ap)


def _read_json(path: Path, kind: type) -> Any:
    """Return the content of a JSON file, which is of a kind.

    Raises:
        InputError: it is no JSON, or something else.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f'{path} is not valid JSON ({error}): test again.') from error
    if not isinstance(content, kind):
        raise InputError(f'{path} is not what a test writes: test again.')
    return content


def _evaluated(images: TestImages, evaluations: Sequence[Evaluation], folder: Path) -> dict[str, str]:
    """Return the parts of the page about results of which the first kind, masks where there are any, are shown."""
    first, classes = evaluations[0], images.classes
    top = best(curve(first))
    threshold = top.score if top else LEAST_SCORE
    errors = find_errors(first, threshold)
    print('Drawing images')
    pairs = draw_pairs(images, first, threshold, IMAGES, Canvas(images.dataset.metainfo, folder / 'images', SIDES))
    false, missed = draw_worst(
        images, first, errors, threshold, Canvas(images.dataset.metainfo, folder / 'images', PART_SIDES)
    )
    confused = most_confused(errors.confusion, classes, CONFUSED)
    return {
        'kinds': PLURALS[first.kind],
        'threshold': f'{threshold:.2f}',
        'why': 'the best threshold below' if top else 'no threshold is best',
        'match_iou': f'{MATCH_IOU:.2f}',
        'pairs': ''.join(html.image(path, path.stem) for path in pairs),
        'thresholds': html.table(
            ['results', 'best score threshold', 'F1', 'precision', 'recall'], list(map(_best, evaluations))
        ),
        'threshold_curves': html.image(
            draw_thresholds(first, classes, folder / 'score_threshold.png'),
            f'F1, precision and recall of {PLURALS[first.kind]} over the score threshold',
        ),
        'precision_recall': html.image(
            draw_precision_recall(first, classes, folder / 'precision_recall.png'),
            f'Precision of {PLURALS[first.kind]} over recall',
        ),
        'confusion': confusion_table(errors.confusion, classes),
        'confused': html.table(['object', 'detected as', 'times', 'part of the objects'], confused)
        if confused
        else '<p>No class is taken for another.</p>',
        'reasons': html.table(['', 'reason', 'number', 'meaning'], _reasons(errors)),
        'false': ''.join(html.image(*drawn) for drawn in false) or '<p>There are none.</p>',
        'missed': ''.join(html.image(*drawn) for drawn in missed) or '<p>There are none.</p>',
        'classes': html.table(class_head(evaluations), class_rows(evaluations, classes), 'classes'),
    }


def _best(evaluation: Evaluation) -> list[str]:
    """Return a row with the best score threshold of a kind of results."""
    top = best(curve(evaluation)) or Best(-1, -1, -1, -1)
    figures = [html.number(value) for value in (top.f1, top.precision, top.recall)]
    return [PLURALS[evaluation.kind], html.number(top.score, 2), *figures]


def _reasons(errors: Errors) -> list[list[str]]:
    """Return a row for each reason of the false positives and of the misses, the most frequent first."""
    kinds: dict[str, list[Reason]] = {
        'false positive': [error.reason for error in errors.false_positives],
        'missed object': [error.reason for error in errors.misses],
    }
    return [
        [kind, reason.words, str(count), reason.meaning]
        for kind, found in kinds.items()
        for reason, count in Counter(found).most_common()
    ]


def _figures(metrics: dict[str, float], kind: str) -> list[str]:
    return [html.number(metrics.get(f'coco/{kind}_{key}', math.nan)) for key in FIGURES.values()]


def _facts(cfg: Any, images: TestImages, curves: Curves, command: str) -> list[list[str]]:
    print('Measuring the time of an image')
    timed = [images.load(image) for image in images.numbers[:: max(1, len(images.numbers) // TIMED)][:TIMED]]
    return [
        ['Data', f'{images.dataset.ann_file}: {len(images.dataset)} images'],
        ['Checkpoint', str(tested_file(cfg) or 'not known')],
        ['Training', f'{max(curves["loss"], default=0)} iterations'],
        ['Time', measure_speed(cfg, [loaded[1][..., ::-1] for loaded in timed if loaded])],
        ['Command', command],
        ['Date', f'{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}'],
    ]


def _panoptic_figures(metrics: dict[str, float]) -> list[list[str]]:
    """Return rows with a panoptic model's PQ and mIoU in percent; none of other models."""
    names = {'PQ': 'coco_panoptic/PQ', 'PQ of things': 'coco_panoptic/PQ_th', 'PQ of stuff': 'coco_panoptic/PQ_st'}
    names['mIoU'] = 'semantic/mIoU'
    return [[name, f'{metrics[key]:.1f}'] for name, key in names.items() if key in metrics]
