"""Put a run's figures, curves and pictures together."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from centermask.datasets.coco import innermost
from centermask.datasets.coco_annotations import CocoAnnotations
from centermask.engine.configs import load_config
from centermask.report import page, pictures, plots
from centermask.report.drawing import Shown, class_colours, read_image
from centermask.report.evaluation import Evaluation, evaluate, read_results
from centermask.report.history import History, read_history
from centermask.utils.atomic_io import atomic_folder
from centermask.utils.errors import InputError

PAGE_NAME = 'report.html'
PICTURES = 12
# Below this score a prediction is not drawn; it counts in the AP all the same.
LEAST_SCORE = 0.4
AP_CURVES = {'mask AP': 'coco/segm_mAP', 'box AP': 'coco/bbox_mAP'}


@dataclass
class Report:
    """What :func:`build_report` wrote: the page, the PNG files, box AP and, where masks are tested, mask AP."""

    page: Path
    images: list[Path]
    box: Evaluation
    mask: Evaluation | None


@dataclass
class _Data:
    """Ground truth, detections and where the images are."""

    config: Path
    annotations: Path
    images: Path
    truth: COCO
    category_ids: list[int]
    boxes: list[dict]
    masks: list[dict] | None


def build_report(work_dir: Path, predictions: str, out: Path, command: str) -> Report:
    """Write ``report.html`` and PNG files about a run on any data set in COCO format.

    Args:
        work_dir: of the training; its scalars give the curves.
        predictions: what ``test_evaluator.outfile_prefix`` was at the test; ``PREFIX.bbox.json`` and, where masks are
            tested, ``PREFIX.segm.json`` are read. The config beside them (else in ``work_dir``) says what was tested.
        out: folder to write; a report that stands there is replaced.
        command: what the user typed, shown in the report.

    Raises:
        InputError: a file is missing or belongs to other data, or ``out`` can't be written.
    """
    history = read_history(work_dir)
    data = _read_data(work_dir, predictions)
    box = evaluate(data.truth, data.boxes, 'bbox', data.category_ids)
    mask = None if data.masks is None else evaluate(data.truth, data.masks, 'segm', data.category_ids)
    kinds = {'box': box} if mask is None else {'mask': mask, 'box': box}
    with atomic_folder(out, lambda folder: (folder / PAGE_NAME).exists()) as folder:
        sections = {
            '': _headline(data, history, kinds, command),
            'Ground truth beside predictions': _shown_images(data, folder),
            'Classes': _classes(data, kinds, folder),
            'Training': _curves(history, folder),
        }
        (folder / PAGE_NAME).write_text(page.page(data.config.stem, sections), encoding='utf-8')
        images = [path.relative_to(folder) for path in sorted(folder.rglob('*.png'))]
    return Report(out / PAGE_NAME, [out / path for path in images], box, mask)


def _read_data(work_dir: Path, predictions: str) -> _Data:
    config_path = _config_of_run(Path(predictions).parent, work_dir)
    config = load_config(config_path)
    if 'test_dataloader' not in config:
        raise InputError(f'The config {config_path} has no test_dataloader: name the work dir of a training run.')
    dataset = innermost(config.test_dataloader)
    root = Path(dataset.get('data_root') or '')
    annotations = root / dataset['ann_file']
    truth = CocoAnnotations(str(annotations))
    # COCOeval sorts the ids whatever order it is given.
    category_ids = sorted(truth.get_cat_ids(cat_names=dataset.get('metainfo', {}).get('classes', ())))
    masks = None
    evaluator = config.get('test_evaluator')
    if not isinstance(evaluator, dict) or 'segm' in evaluator.get('metric', 'segm'):
        masks = read_results(Path(f'{predictions}.segm.json'), truth, category_ids)
    return _Data(
        config=config_path,
        annotations=annotations,
        images=root / dataset['data_prefix']['img'],
        truth=truth,
        category_ids=category_ids,
        boxes=read_results(Path(f'{predictions}.bbox.json'), truth, category_ids),
        masks=masks,
    )


def _config_of_run(*folders: Path) -> Path:
    """The config that MMEngine left in the first of these folders that has one."""
    for folder in folders:
        if configs := sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime):
            return configs[-1]
    raise InputError(f'{folders[-1]} holds no config (*.py): name the work dir of a training run.')


def _headline(data: _Data, history: History, kinds: dict[str, Evaluation], command: str) -> list[str]:
    steps, seconds = history.curve('time')
    objects, classes = len(data.truth.getAnnIds(catIds=data.category_ids, iscrowd=0)), len(data.category_ids)
    known = {
        'Config': data.config.name,
        'Data': f'{data.annotations}: {len(data.truth.imgs)} images with {objects} objects of {classes} classes',
        'Training': f'{max(steps)} iterations, {np.median(seconds):.2f} s each' if steps else 'no iteration logged',
        'Command': command,
        'Date': f'{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}',
    }
    names = {'mask': 'Masks', 'box': 'Boxes'}
    rows = [[names[kind], *map(page.number, found.figures.values())] for kind, found in kinds.items()]
    return [
        page.cards({f'{kind} AP': found.figures['AP'] for kind, found in kinds.items()}),
        page.facts(known),
        page.table(['', *kinds['box'].figures], rows),
        page.paragraph(
            'AP is the average precision of COCO, from 0 to 1: the mean over IoU 0.50, 0.55, …, 0.95 and over the '
            'classes. Small objects have less than 32² pixels, large ones more than 96².'
        ),
    ]


def _shown_images(data: _Data, folder: Path) -> list[str]:
    chosen = pictures.choose_images(data.truth, data.category_ids, PICTURES)
    if not chosen:
        return [page.paragraph('No image of this data set has an object.')]
    colours = dict(zip(data.category_ids, class_colours(len(data.category_ids)), strict=True))
    (folder / 'pictures').mkdir()
    parts = [
        page.paragraph(
            f'Images with objects, spread over the data set, those with overlaps first. Predictions with a score of at '
            f'least {LEAST_SCORE} are drawn; the number is the '
            + ('score.' if data.masks is None else 'mask score (detection score × predicted mask IoU).')
        )
    ]
    for position, image_id in enumerate(chosen, 1):
        name = data.truth.imgs[image_id]['file_name']
        image = read_image(data.images / name)
        annotations = data.truth.loadAnns(data.truth.getAnnIds(image_id, data.category_ids))
        every = data.boxes if data.masks is None else data.masks
        results = [r for r in every if r['image_id'] == image_id and r['score'] >= LEAST_SCORE]
        truth = [_shown(data, colours, a, data.truth.annToMask(a), ' (crowd)' * a['iscrowd']) for a in annotations]
        found = [
            _shown(data, colours, r, _mask_of(r), f' {r["score"]:.2f}')
            for r in sorted(results, key=lambda result: -result['score'])
        ]
        pair = pictures.draw_pair(image, truth, found)[..., ::-1]
        cv2.imwrite(str(folder / 'pictures' / f'{position:02d}_{Path(name).stem}.png'), pair)
        alt = f'{name}: left {_list(truth)} in the ground truth, right {_list(found)} predicted'
        parts.append(page.picture(cv2.imencode('.jpg', pair)[1].tobytes(), 'jpeg', alt, name))
    return parts


def _mask_of(result: dict) -> np.ndarray | None:
    return coco_mask.decode(result['segmentation']) if 'segmentation' in result else None


def _shown(data: _Data, colours: dict, item: dict, mask: np.ndarray | None, suffix: str) -> Shown:
    category = item['category_id']
    return Shown(mask, item['bbox'], colours[category], data.truth.cats[category]['name'] + suffix)


def _list(objects: Sequence[Shown]) -> str:
    return ', '.join(shown.label for shown in objects) or 'nothing'


def _classes(data: _Data, kinds: dict[str, Evaluation], folder: Path) -> list[str]:
    rows = []
    for category_id in data.category_ids:
        name = data.truth.cats[category_id]['name']
        objects = len(data.truth.getAnnIds(catIds=[category_id], iscrowd=0))
        rows.append([name, str(objects), *(page.number(found.per_class[name]) for found in kinds.values())])
    parts = [page.table(['class', 'objects', *(f'{kind} AP' for kind in kinds)], rows)]
    present = [name for name, value in kinds['box'].per_class.items() if not math.isnan(value)]
    if len(present) < len(rows):
        parts.append(page.paragraph('A dash stands where a class has no object here: it counts in no figure.'))
    if present:
        path = folder / 'ap_per_class.png'
        bars = {f'{kind} AP': [found.per_class[name] for name in present] for kind, found in kinds.items()}
        plots.plot_classes(present, bars, path)
        alt = f'Bars of {" and ".join(bars)} of each class; the table has the figures.'
        parts.insert(0, page.picture(path.read_bytes(), 'png', alt))
    return parts


def _curves(history: History, folder: Path) -> list[str]:
    parts = []
    if history.training:
        path = folder / 'losses.png'
        plots.plot_losses(history, path)
        ends = []
        for name in [*history.losses, 'loss']:
            values = history.curve(name)[1]
            ends.append(f'{name} from {values[0]:.3f} to {values[-1]:.3f}')
        parts.append(page.picture(path.read_bytes(), 'png', f'Losses over iterations: {", ".join(ends)}.'))
    reached = {label: history.curve(name) for label, name in AP_CURVES.items() if history.curve(name)[0]}
    if reached:
        path = folder / 'ap.png'
        plots.plot_ap(reached, path)
        ends = [f'{label} {values[-1]:.3f} at iteration {steps[-1]}' for label, (steps, values) in reached.items()]
        parts.append(
            page.picture(path.read_bytes(), 'png', f'AP at each validation during training; at last {", ".join(ends)}.')
        )
    else:
        parts.append(page.paragraph('There was no validation during training, so there is no curve of AP over time.'))
    return parts
