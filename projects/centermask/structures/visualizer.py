"""Drawing of objects: a few with labels, hundreds with a legend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData, PixelData

from centermask.structures.captions import Caption, Colour, draw_legend
from centermask.structures.fonts import drawable_names
from centermask.structures.object_drawing import draw_labels, draw_objects
from centermask.structures.panoptic_drawing import draw_panoptic, panoptic_truth

MAX_LABELLED = 40  # objects; more have a legend instead of labels, and no boxes around masks
GAP = 8  # pixels between ground truth and predictions


@VISUALIZERS.register_module()
class CenterMaskVisualizer(DetLocalVisualizer):
    """MMDetection's visualizer, drawn by OpenCV and Pillow at a size that can be read.

    A class has a colour, in a data set of one class an object has. Labels are drawn where there is room; where they
    are not, a legend on the right has the classes and their numbers of objects. Where the data set's metainfo names
    ``stuff_classes``, panoptic maps are drawn instead of objects.

    Args:
        name, image, vis_backends, save_dir: As MMDetection's takes them.
        alpha: How much of a mask's colour covers the image, from 0 to 1.
        sides: The least and the greatest number of pixels of the longer side; other images are resized.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        image: np.ndarray | None = None,
        vis_backends: list | dict | None = None,
        save_dir: str | None = None,
        alpha: float = 0.25,
        sides: tuple[int, int] = (640, 1600),
    ) -> None:
        super().__init__(name, image, vis_backends, save_dir, alpha=alpha)
        self.sides = sides
        self._scale = 1.0
        self._gap = 0

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: DetDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        **kwargs: Any,
    ) -> None:
        """Draw as MMDetection does, on the resized image, with a gap where ground truth is beside predictions."""
        longer = max(image.shape[:2])
        self._scale = float(np.clip(longer, *self.sides)) / longer
        self._gap = GAP if draw_gt and draw_pred else 0
        if self._scale != 1:
            width, height = (max(1, round(pixels * self._scale)) for pixels in image.shape[1::-1])
            interpolation = cv2.INTER_AREA if self._scale < 1 else cv2.INTER_CUBIC
            image = cv2.resize(image.clip(0, 255).astype(np.uint8), (width, height), interpolation=interpolation)
        if data_sample is not None and {'pred_panoptic_seg', 'gt_sem_seg'} & {*data_sample.keys()}:
            data_sample = self._panoptic_or_objects(data_sample)
        super().add_datasample(name, image, data_sample, draw_gt, draw_pred, **kwargs)

    def _panoptic_or_objects(self, data_sample: DetDataSample) -> DetDataSample:
        """Return a sample with panoptic maps and not their parts; without names of stuff with objects alone."""
        shown = data_sample.cpu()
        stuff = len(self.dataset_meta.get('stuff_classes', ()))
        if stuff and 'gt_sem_seg' in shown and 'masks' in shown.get('gt_instances', ()):
            semantic = np.asarray(shown.gt_sem_seg.sem_seg)[0]
            panoptic = panoptic_truth(shown.gt_instances, semantic, len(self.dataset_meta['classes']), stuff)
            shown.gt_panoptic_seg = PixelData(sem_seg=panoptic[None], metainfo=dict(gap=self._gap))
            del shown.gt_instances
        hidden = {'gt_sem_seg', 'pred_sem_seg', 'pred_panoptic_seg'}
        if stuff and 'pred_panoptic_seg' in shown:
            hidden = {'gt_sem_seg', 'pred_sem_seg', 'pred_instances'}
        for name in hidden & {*shown.keys()}:
            delattr(shown, name)
        return shown

    def _draw_panoptic_seg(
        self, image: np.ndarray, panoptic_seg: PixelData, classes: Sequence[str], palette: Any
    ) -> np.ndarray:
        """Return the resized RGB image (H, W, 3) with the segments drawn on it, and a legend or a gap beside it."""
        names = drawable_names((*classes, *self.dataset_meta['stuff_classes']))
        drawn = draw_panoptic(
            image,
            np.asarray(panoptic_seg.sem_seg)[0],
            names,
            class_colours(palette, len(names)),
            min(1.0, 2 * self.alpha),  # of the whole image, not of a few objects
            font_size_for(image),
            MAX_LABELLED,
        )
        return np.hstack([drawn, np.full((len(drawn), panoptic_seg.get('gap', 0), 3), 255, np.uint8)])

    def _draw_instances(
        self, image: np.ndarray, instances: InstanceData, classes: Sequence[str] | None, palette: Any
    ) -> np.ndarray:
        """Return the resized RGB image (H, W, 3) with the instances drawn on it, and the legend beside it."""
        drawn = np.ascontiguousarray(image).copy()
        gap = np.full((len(drawn), 0 if 'scores' in instances else self._gap, 3), 255, np.uint8)
        labels = [int(label) for label in instances.get('labels', ())]
        if not labels:
            return np.hstack([drawn, gap])
        known = tuple(classes or ())
        names = drawable_names(known + tuple(f'class {i}' for i in range(len(known), max(labels) + 1)))
        by_class = class_colours(palette, len(names))
        colours = distinct_colours(len(labels)) if len(names) == 1 else [by_class[label] for label in labels]
        font_size = font_size_for(drawn)
        few = len(labels) <= MAX_LABELLED
        boxes = draw_objects(drawn, instances, self._scale, colours, self.alpha, few)
        if few:
            scores = [f'{100 * score:.0f}' for score in instances.get('scores', np.array([])).tolist()]
            texts = zip((names[label] for label in labels), scores or [''] * len(labels), colours, strict=True)
            if draw_labels(drawn, boxes, [Caption(*text) for text in texts], font_size):
                return np.hstack([drawn, gap])
        title = f'{len(labels)} {"detection" if "scores" in instances else "object"}{"s" * (len(labels) > 1)}'
        rows = [
            (names[label], count, by_class[label] if len(names) > 1 else None)
            for label, count in Counter(labels).most_common()
        ]
        return np.hstack([drawn, draw_legend(title, rows, len(drawn), font_size), gap])


def font_size_for(image: np.ndarray) -> int:
    """Return the pixels of letters that can be read on an image (H, W, 3)."""
    return max(12, max(image.shape) // 100)


@cache
def distinct_colours(number: int) -> list[Colour]:
    """Return saturated colours that are neither dark nor light, each as far as possible from those before it."""
    rgb = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3, indexing='ij'), axis=-1).reshape(-1, 3)
    luma = rgb @ (0.299, 0.587, 0.114)
    rgb = rgb[(luma > 85) & (luma < 215) & (np.ptp(rgb, axis=1) > 100)]
    seen = rgb * (1.6, 2, 1.6)  # about how different colours look
    chosen = [int(seen[:, 0].argmax())]
    distances = np.full(len(rgb), np.inf)
    while len(chosen) < min(number, len(rgb)):
        distances = np.minimum(distances, np.linalg.norm(seen - seen[chosen[-1]], axis=1))
        chosen.append(int(distances.argmax()))
    return [tuple(rgb[chosen[i % len(chosen)]].tolist()) for i in range(number)]


def class_colours(palette: Any, number: int) -> list[Colour]:
    """Return the data set's own palette, unless it has too few colours or is COCO's: its first ones are all dark."""
    if not isinstance(palette, list | tuple) or len(palette) < number or palette == CocoDataset.METAINFO['palette']:
        return distinct_colours(number)
    return [(int(r), int(g), int(b)) for r, g, b in palette]
