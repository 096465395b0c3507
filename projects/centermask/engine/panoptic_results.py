"""Panoptic maps of images in COCO's panoptic format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config

from centermask.datasets.coco_panoptic import (
    Category,
    categories_of,
    read_categories,
    write_panoptic,
    write_panoptic_json,
)
from centermask.engine.coco_results import CocoResults
from centermask.utils.errors import InputError


class PanopticResults:
    """Panoptic maps of some images, as ``predictions.panoptic.json`` and PNGs in the folder ``predictions.panoptic``.

    Ids of images are those of the detections. Ids of classes are those of the panoptic file that the config's evaluator
    names, if it is there and has these classes; else COCO's, or those of the detections and for stuff the next ones.

    Args:
        detections: the results of the same images.
        stuff: names of the classes of stuff, by label.
        cfg: the config.
        folder: where the files go.

    Attributes:
        origin: where the ids of classes are from, for the user.
    """

    def __init__(self, detections: CocoResults, stuff: Sequence[str], cfg: Config, folder: Path) -> None:
        self._detections, self._pngs = detections, folder / 'predictions.panoptic'
        self._categories, self.origin = _find_categories(cfg, detections, stuff)
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._names: set[Path] = set()

    def add(self, path: Path, panoptic: np.ndarray) -> None:
        """Write the PNG of an image at ``path`` with MMDetection's panoptic map (H, W)."""
        image = self._detections.image(path, panoptic.shape)
        name = Path(image['file_name'])
        if name.with_suffix('.png') in self._names:  # a.jpg and a.png
            name = Path(f'{name}.png')
        self._names.add(name.with_suffix('.png'))
        self._images.append(image)
        self._annotations.append(write_panoptic(panoptic, {**image, 'file_name': name}, self._categories, self._pngs))

    def write(self) -> Path:
        """Write the JSON file and return its path."""
        path = self._pngs.with_name(f'{self._pngs.name}.json')
        write_panoptic_json(path, self._images, self._annotations, self._categories)
        return path


def _find_categories(cfg: Config, detections: CocoResults, stuff: Sequence[str]) -> tuple[list[Category], str]:
    """Return the categories of things, then of stuff, by label, and where their ids are from."""
    things = detections.classes
    evaluators = cfg.get('test_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        if evaluator['type'] == 'PanopticQuality':
            try:
                listed = {
                    (category.isthing, category.name): category for category in read_categories(evaluator['ann_file'])
                }
                found = [listed[True, name] for name in things] + [listed[False, name] for name in stuff]
                return found, f'ids of classes are those of {evaluator["ann_file"]}'
            except (InputError, KeyError):  # not on this machine, or of another data set
                pass
    origin = 'ids of classes are listed under "categories": no panoptic file of these classes is where the config says'
    usual = categories_of(things, stuff)
    if [category.id for category in usual[: len(things)]] == detections.category_ids:
        return usual, origin
    first = 1 + max((number for number in detections.category_ids if isinstance(number, int)), default=0)
    ids = [*detections.category_ids, *range(first, first + len(stuff))]
    return [category._replace(id=number) for category, number in zip(usual, ids, strict=True)], origin
