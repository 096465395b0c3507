"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", Section 4), by the rules of COCO's evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from centermask.datasets.coco_annotations import as_text
from centermask.datasets.coco_panoptic import (
    Category,
    find_segments,
    write_panoptic,
    write_panoptic_json,
)
from centermask.datasets.panoptic_truth import PanopticTruthMetric


class Match(NamedTuple):
    """How the segments of an image match.

    Attributes:
        truths, found: Positions of the matched segments, (K,) each.
        iou: Of each pair, (K,).
        missed: Positions of the segments of the ground truth that no other matches, crowds apart.
        wrong: Positions of the predicted segments that match none and aren't ignored.
    """

    truths: np.ndarray
    found: np.ndarray
    iou: np.ndarray
    missed: np.ndarray
    wrong: np.ndarray


def match_segments(
    truth: np.ndarray, found: np.ndarray, truth_segments: Sequence[dict], found_segments: Sequence[dict]
) -> Match:
    """Match the segments of an image: a pair of one category whose IoU is over 0.5.

    Void of the ground truth belongs to no union. Crowds match nothing and aren't missed. A predicted segment without a
    match is ignored where void and the crowds of its category hold more than half of it.

    Args:
        truth, found: For each pixel the number of its segment (H, W): 1 is the first, 0 is void.
        truth_segments, found_segments: ``category_id`` of each segment, and ``iscrowd`` of those of the ground truth.
    """
    rows, columns = len(truth_segments) + 1, len(found_segments) + 1
    pairs = np.bincount((truth * columns + found).reshape(-1), minlength=rows * columns).reshape(rows, columns)
    truth_areas, found_areas = pairs.sum(1)[1:], pairs.sum(0)[1:]
    void, overlaps = pairs[0, 1:], pairs[1:, 1:]  # (F,), (T, F)
    truth_classes = np.array([segment['category_id'] for segment in truth_segments], dtype=np.int64)
    found_classes = np.array([segment['category_id'] for segment in found_segments], dtype=np.int64)
    crowds = np.array([bool(segment.get('iscrowd')) for segment in truth_segments], dtype=bool)

    same_class = truth_classes[:, None] == found_classes
    unions = truth_areas[:, None] + found_areas - overlaps - void
    matches = same_class & ~crowds[:, None] & (2 * overlaps > unions)
    truths, predicted = np.nonzero(matches)
    ignored = 2 * (void + (overlaps * (same_class & crowds[:, None])).sum(0)) > found_areas
    return Match(
        truths,
        predicted,
        iou=overlaps[matches] / unions[matches],
        missed=np.flatnonzero(~matches.any(1) & ~crowds),
        wrong=np.flatnonzero(~matches.any(0) & ~ignored),
    )


def sum_matches(
    match: Match, truth_segments: Sequence[dict], found_segments: Sequence[dict], categories: Sequence[Category]
) -> np.ndarray:
    """Return the sum of IoU and the numbers of true positives, false positives and false negatives, (C, 4)."""
    places = {category.id: place for place, category in enumerate(categories)}
    of_truth = np.array([places[segment['category_id']] for segment in truth_segments], dtype=np.int64)
    of_found = np.array([places[segment['category_id']] for segment in found_segments], dtype=np.int64)
    count = len(categories)
    return np.stack(
        [
            np.bincount(of_truth[match.truths], match.iou, minlength=count),
            np.bincount(of_truth[match.truths], minlength=count),
            np.bincount(of_found[match.wrong], minlength=count),
            np.bincount(of_truth[match.missed], minlength=count),
        ],
        axis=1,
    )


class Quality(NamedTuple):
    """PQ = SQ · RQ, each the mean over the classes that occur, from 0 to 1; -1 where none does."""

    pq: float
    sq: float
    rq: float
    n: int  # number of these classes


def quality(sums: np.ndarray) -> Quality:
    """Return the mean quality of classes from their sums (C, 4) over all images, see :func:`sum_matches`."""
    iou, positives, wrong, missed = sums[sums[:, 1:].any(1)].T
    if not len(iou):
        return Quality(-1, -1, -1, 0)
    halves = positives + wrong / 2 + missed / 2
    sq = iou / np.maximum(positives, 1)  # 0 for a class without true positives
    return Quality(float((iou / halves).mean()), float(sq.mean()), float((positives / halves).mean()), len(iou))


@METRICS.register_module()
class PanopticQuality(PanopticTruthMetric):
    """PQ, SQ and RQ of ``pred_panoptic_seg``, in percent: of all classes, of things (``_th``) and of stuff (``_st``).

    Images are compared as they are predicted, so processes gather a few numbers an image.

    Args:
        *args, **kwargs: As :class:`PanopticTruthMetric` takes them.
        classwise: Whether to log the figures of each class too.
        outfile_prefix: Where to write the predictions, as PREFIX.panoptic.json and the folder PREFIX.panoptic of PNGs,
            in the ids of ``ann_file``; None writes none.

    Raises:
        InputError, RunError: As there.
    """

    default_prefix = 'coco_panoptic'

    def __init__(self, *args: Any, classwise: bool = False, outfile_prefix: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.classwise = classwise
        self.outfile_prefix = outfile_prefix

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compare the panoptic maps of a batch with the ground truth."""
        for sample in data_samples:
            panoptic, truth, truth_segments = self.read(sample, 'pred_panoptic_seg')
            found, segments = find_segments(panoptic, self.categories)
            match = match_segments(truth, found, truth_segments, segments)
            written = {}
            if self.outfile_prefix:
                image = self.truth.images[as_text(sample['img_id'])]
                written = write_panoptic(panoptic, image, self.categories, Path(f'{self.outfile_prefix}.panoptic'))
            self.results.append((sum_matches(match, truth_segments, segments, self.categories), written))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return the figures, and log them as a table."""
        sums = np.sum([sums for sums, _ in results], axis=0)
        things = np.array([category.isthing for category in self.categories])
        rows: list[list] = []
        scores: dict[str, float] = {}
        for name, suffix, chosen in (
            ('All', '', np.ones_like(things)),
            ('Things', '_th', things),
            ('Stuff', '_st', ~things),
        ):
            figures = quality(sums[chosen])
            percent = [100 * figure if figures.n else -1 for figure in figures[:3]]
            scores |= {f'{kind}{suffix}': value for kind, value in zip(('PQ', 'SQ', 'RQ'), percent, strict=True)}
            rows.append([name, *(f'{value:.3f}' for value in percent), figures.n])
        if self.classwise:
            for category, row in zip(self.categories, sums, strict=True):
                figures = quality(row[None])
                if figures.n:
                    rows.append([category.name, *(f'{100 * figure:.3f}' for figure in figures[:3]), ''])
        table = AsciiTable([['', 'PQ', 'SQ', 'RQ', 'classes'], *rows]).table
        logger = MMLogger.get_current_instance()
        logger.info(f'Panoptic quality\n{table}')
        if self.outfile_prefix:
            path = Path(f'{self.outfile_prefix}.panoptic.json')
            images = [self.truth.images[as_text(written['image_id'])] for _, written in results]
            write_panoptic_json(path, images, [written for _, written in results], self.categories)
            logger.info(f'The panoptic predictions are in {path}, their PNGs in the folder {path.with_suffix("")}.')
        return scores
