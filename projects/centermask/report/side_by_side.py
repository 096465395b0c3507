"""The report's images: ground truth beside predictions, and the curves of the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmdet.datasets import BaseDetDataset
from mmengine.structures import InstanceData

from centermask.report.history import Curves
from centermask.structures.rle_masks import RLEMasks
from centermask.structures.visualizer import CenterMaskVisualizer

SIDES = (640, 1000)  # pixels of the longer side of an image
LEAST_SCORE = 0.4
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'img_shape')),
]


def draw_pairs(dataset: BaseDetDataset, results: Sequence[dict], number: int, out: Path) -> list[Path]:
    """Draw images with objects, spread over the data set: ground truth on the left, predictions on the right.

    Args:
        dataset: with ``PIPELINE``.
        results: COCO results of the data set, with masks or without.
        number: how many images to draw, if there are as many.
        out: folder for the files.

    Returns:
        The files that were written.
    """
    visualizer = CenterMaskVisualizer(name='report', sides=SIDES)
    visualizer.dataset_meta = dataset.metainfo
    with_objects = [i for i in range(len(dataset)) if dataset.get_data_info(i)['instances']]
    drawn: list[Path] = []
    for index in with_objects[:: max(1, -(-len(with_objects) // number))]:
        data = dataset[index]
        image, sample = data['inputs'].permute(1, 2, 0).numpy()[..., ::-1], data['data_samples']
        of_image = [r for r in results if r['image_id'] == sample.img_id and r['score'] >= LEAST_SCORE]
        sample.pred_instances = _to_instances(of_image, dataset.cat2label, sample.img_shape)
        drawn.append(out / f'{len(drawn) + 1:02d}_{Path(sample.img_path).stem}.jpg')
        visualizer.add_datasample('', image, sample, pred_score_thr=0, out_file=str(drawn[-1]))
    return drawn


def _to_instances(results: Sequence[dict], labels: dict[int, int], image_size: tuple[int, int]) -> InstanceData:
    """Return COCO results of one image of a size (height, width) as instances."""
    boxes = torch.tensor([result['bbox'] for result in results]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([labels[result['category_id']] for result in results], dtype=torch.long),
        scores=torch.tensor([result['score'] for result in results]),
    )
    if any('segmentation' in result for result in results):
        instances.masks = RLEMasks([result['segmentation'] for result in results], image_size)
    return instances


def draw_curves(curves: Curves, out: Path) -> None:
    """Draw the losses on the left and, where there were validations, their AP on the right."""
    losses = [name for name in curves if name.startswith('loss')]
    precisions = [name for name in curves if name.endswith('_mAP')]
    figure = Figure(figsize=(10, 3.6), layout='constrained')
    panels = [(losses, 'loss')] + ([(precisions, 'AP at validation')] if precisions else [])
    for axes, (names, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in names:
            axes.plot([*curves[name]], [*curves[name].values()], label=name, marker='o' if 'AP' in name else None)
        axes.set(title=title, xlabel='iteration', ylim=(0, 1 if 'AP' in title else None))
        axes.grid(color='#e6e6e6')
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, dpi=110)
