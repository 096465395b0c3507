"""Put a run's figures, curves and images together on one page."""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope

from centermask.datasets.coco import innermost
from centermask.engine.configs import load_config
from centermask.report.history import Curves, read_curves
from centermask.report.side_by_side import LEAST_SCORE, PIPELINE, draw_curves, draw_pairs
from centermask.utils.atomic_io import atomic_folder
from centermask.utils.errors import InputError

PAGE_NAME = 'report.html'
IMAGES = 12
FIGURES = {
    **{'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75', 'small': 'mAP_s', 'medium': 'mAP_m', 'large': 'mAP_l'},
    'recall at 100': 'AR@100',
}
KINDS = {'segm': 'mask', 'bbox': 'box'}


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
        test_dir: of a test with :func:`report_options`, whose config names the data.
        out: folder to write; an existing report is replaced.
        command: the command line, shown in the report.

    Raises:
        InputError: a file is missing, or ``out`` can't be written.
    """
    curves = read_curves(work_dir)
    metrics = _read_last(sorted(test_dir.glob('*/*.json')), f'{test_dir} holds no figures of a test')
    results = _read_last(
        [path for path in (test_dir / 'results.bbox.json', test_dir / 'results.segm.json') if path.is_file()],
        f'{test_dir} holds no results.bbox.json',
    )
    configs = sorted(test_dir.glob('*.py'), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise InputError(f'{test_dir} holds no config (*.py): name the work dir of a test.')
    dataset = _build_dataset(configs[-1])
    ap = {kind: metrics[key] for name, kind in KINDS.items() if (key := f'coco/{name}_mAP') in metrics}
    with atomic_folder(out, lambda folder: (folder / PAGE_NAME).exists()) as folder:
        (folder / 'images').mkdir()
        pairs = draw_pairs(dataset, results, IMAGES, folder / 'images')
        draw_curves(curves, folder / 'curves.png')
        page = Template(Path(__file__).with_name('page.html').read_text(encoding='utf-8')).substitute(
            title=escape(configs[-1].stem),
            figures=_table(['', *FIGURES], [[kind, *_figures(metrics, name)] for name, kind in KINDS.items()]),
            facts=_table(['', ''], _facts(dataset, curves, command) + _panoptic_figures(metrics)),
            least_score=LEAST_SCORE,
            pairs=''.join(_figure(path, path.stem) for path in pairs),
            classes=_table(['class', 'objects', *(f'{kind} AP' for kind in ap)], _classes(dataset, metrics)),
            curves=_figure(folder / 'curves.png', 'Losses and AP over iterations'),
        )
        (folder / PAGE_NAME).write_text(page, encoding='utf-8')
    return Report(out / PAGE_NAME, ap)


def _read_last(files: Sequence[Path], missing: str) -> Any:
    """Return the content of the last of these JSON files.

    Raises:
        InputError: there is none, or it is no JSON.
    """
    if not files:
        raise InputError(f'{missing}: test with test_evaluator.outfile_prefix=DIR/results and --work-dir DIR first.')
    try:
        return json.loads(files[-1].read_text())
    except ValueError as error:
        raise InputError(f'{files[-1]} is not valid JSON ({error}): test again.') from error


def _build_dataset(config: Path) -> BaseDetDataset:
    cfg = load_config(config)
    if 'test_dataloader' not in cfg:
        raise InputError(f'The config {config} has no test_dataloader: name the work dir of a test.')
    init_default_scope('mmdet')
    return DATASETS.build({**innermost(cfg.test_dataloader), 'pipeline': PIPELINE})


def _figures(metrics: dict[str, float], kind: str) -> list[str]:
    return [_number(metrics.get(f'coco/{kind}_{key}', math.nan)) for key in FIGURES.values()]


def _facts(dataset: BaseDetDataset, curves: Curves, command: str) -> list[list[str]]:
    return [
        ['Data', f'{dataset.ann_file}: {len(dataset)} images'],
        ['Training', f'{max(curves["loss"], default=0)} iterations'],
        ['Command', command],
        ['Date', f'{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}'],
    ]


def _panoptic_figures(metrics: dict[str, float]) -> list[list[str]]:
    """Return rows with a panoptic model's PQ and mIoU in percent; none of other models."""
    names = {'PQ': 'coco_panoptic/PQ', 'PQ of things': 'coco_panoptic/PQ_th', 'PQ of stuff': 'coco_panoptic/PQ_st'}
    names['mIoU'] = 'semantic/mIoU'
    return [[name, f'{metrics[key]:.1f}'] for name, key in names.items() if key in metrics]


def _classes(dataset: BaseDetDataset, metrics: dict[str, float]) -> list[list[str]]:
    """Return a row for each class: its name, its number of objects, its AP of masks and of boxes where tested."""
    tested = [name for name in KINDS if f'coco/{name}_mAP' in metrics]
    instances = (instance for i in range(len(dataset)) for instance in dataset.get_data_info(i)['instances'])
    objects = Counter(instance['bbox_label'] for instance in instances if not instance['ignore_flag'])
    return [
        [
            name,
            str(objects[label]),
            *(_number(metrics.get(f'coco/{kind}_{name}_precision', math.nan)) for kind in tested),
        ]
        for label, name in enumerate(dataset.metainfo['classes'])
    ]


def _number(value: float) -> str:
    """Return a figure with three decimals, a dash where there is none; the metric has -1 without objects."""
    return f'{value:.3f}' if value >= 0 else '–'  # noqa: RUF001


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = ''.join(f'<th>{escape(cell)}</th>' for cell in head)
    body = ''.join('<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>' for row in rows)
    return f'<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _figure(path: Path, caption: str) -> str:
    """Return an image file as part of the page, which then needs no other file."""
    source = f'data:image/{path.suffix[1:]};base64,{base64.b64encode(path.read_bytes()).decode()}'
    text = escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
