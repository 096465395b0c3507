"""What the metrics of panoptic models share: their ground truth in COCO's panoptic format."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from centermask.datasets.coco_annotations import shorten
from centermask.datasets.coco_panoptic import Category, PanopticAnnotations
from centermask.utils.errors import InputError, RunError


class PanopticTruthMetric(BaseMetric):
    """A metric against ground truth in COCO's panoptic format.

    Args:
        ann_file: JSON file of the ground truth.
        seg_prefix: Folder of its PNGs.
        collect_device, prefix: As for every metric of MMEngine.

    Attributes:
        truth: The ground truth.
        categories: Its categories in the order of the model's labels, once ``dataset_meta`` is set.

    Raises:
        InputError: The ground truth can't be used, has other classes than the data set, or lacks an image that was
            tested; or the model makes no panoptic maps.
        RunError: A PNG can't be used, or isn't of the size of its image.
    """

    categories: list[Category]

    def __init__(self, ann_file: str, seg_prefix: str, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device, prefix)
        self.truth = PanopticAnnotations(ann_file, seg_prefix)

    @property
    def dataset_meta(self) -> dict | None:
        """Return the metainfo of the data set."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        """Set it, which MMEngine does before a training starts; other classes than the truth's are refused here."""
        self._dataset_meta = dataset_meta
        self.categories = order_categories(self.truth, dataset_meta)

    def read(self, sample: dict, key: str) -> tuple[np.ndarray, np.ndarray, list[dict]]:
        """Return the predicted map of a sample (H, W), then the truth as :meth:`PanopticAnnotations.read` returns it.

        Args:
            sample: What the model returned of an image.
            key: Of the map in it, ``pred_panoptic_seg`` or ``pred_sem_seg``.
        """
        if key not in sample:
            raise InputError(
                f'{type(self).__name__} needs panoptic maps and the model makes none: test the checkpoint of a '
                'PanopticCenterMask, or take PanopticQuality and SemanticIoU out of the evaluators.'
            )
        number = sample['img_id']
        if number not in self.truth:
            raise InputError(
                f'The panoptic file {self.truth.path} has no image with the id {number}, which was tested: set '
                'ann_file and seg_prefix of the evaluator to the panoptic annotations of its data.'
            )
        found = sample[key]['sem_seg'].squeeze(0).cpu().numpy()
        truth, segments = self.truth.read(number)
        if found.shape != truth.shape:
            raise RunError(
                f'The PNG {self.truth.png(number)} is {truth.shape[1]}x{truth.shape[0]} pixels but its image '
                f'{found.shape[1]}x{found.shape[0]}: correct one of them.'
            )
        return found, truth, segments


def order_categories(truth: PanopticAnnotations, metainfo: dict[str, Any]) -> list[Category]:
    """Return the categories of the ground truth in the order of the model's labels.

    Args:
        truth: The ground truth.
        metainfo: Of the data set: ``classes``, the things, and ``stuff_classes``, by label.

    Raises:
        InputError: The ground truth lacks one of them or has others, or those of stuff aren't in the order of their
            ids, which the labels of the semantic PNGs follow.
    """
    ordered = []
    for kind, key, there in (('things', 'classes', truth.things), ('stuff', 'stuff_classes', truth.stuff)):
        names = tuple(metainfo.get(key, ()))
        by_name = {category.name: category for category in there}
        if set(names) != by_name.keys() or (kind == 'stuff' and names != tuple(by_name)):
            raise InputError(
                f'The panoptic file {truth.path} has the {kind} {shorten(by_name) or "none"} but the data set '
                f'{shorten(names) or "none"}: set {key} in its metainfo to those of the file'
                + (', by rising id.' if kind == 'stuff' else '.')
            )
        ordered += [by_name[name] for name in names]
    return ordered
