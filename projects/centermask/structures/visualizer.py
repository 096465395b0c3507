"""Drawing of objects: a few with labels, hundreds with a legend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData, PixelData
from PIL import Image, ImageDraw

from centermask.structures.captions import Caption, Colour, draw_legend, place_labels
from centermask.structures.fonts import drawable_names
from centermask.structures.panoptic_drawing import draw_panoptic, panoptic_truth
from centermask.structures.rle_masks import RLEMasks

MAX_LABELLED = 40  # objects; more have a legend instead of labels, and no boxes around masks
GAP = 8  # pixels between ground truth and predictions
LARGE = 40  # pixels of the shorter side of objects that are outlined two pixels wide
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


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
            _class_colours(palette, len(names)),
            min(1.0, 2 * self.alpha),  # of the whole image, not of a few objects
            _font_size(image),
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
        by_class = _class_colours(palette, len(names))
        colours = distinct_colours(len(labels)) if len(names) == 1 else [by_class[label] for label in labels]
        font_size = _font_size(drawn)
        few = len(labels) <= MAX_LABELLED
        boxes = _draw_objects(drawn, instances, self._scale, colours, self.alpha, few)
        if few:
            scores = [f'{100 * score:.0f}' for score in instances.get('scores', np.array([])).tolist()]
            texts = zip((names[label] for label in labels), scores or [''] * len(labels), colours, strict=True)
            if _draw_labels(drawn, boxes, [Caption(*text) for text in texts], font_size):
                return np.hstack([drawn, gap])
        title = f'{len(labels)} {"detection" if "scores" in instances else "object"}{"s" * (len(labels) > 1)}'
        rows = [
            (names[label], count, by_class[label] if len(names) > 1 else None)
            for label, count in Counter(labels).most_common()
        ]
        return np.hstack([drawn, draw_legend(title, rows, len(drawn), font_size), gap])


def _font_size(image: np.ndarray) -> int:
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


def _class_colours(palette: Any, number: int) -> list[Colour]:
    """Return the data set's own palette, unless it has too few colours or is COCO's: its first ones are all dark."""
    if not isinstance(palette, list | tuple) or len(palette) < number or palette == CocoDataset.METAINFO['palette']:
        return distinct_colours(number)
    return [(int(r), int(g), int(b)) for r, g, b in palette]


class Crop(NamedTuple):
    """A mask, uint8 of 0 and 1 (h, w), whose first pixel is at (left, top) of the drawn image."""

    mask: np.ndarray
    left: int
    top: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """Return the part of an image (H, W, 3) under the mask's pixels, as a view."""
        height, width = self.mask.shape
        return image[self.top : self.top + height, self.left : self.left + width]


def _draw_objects(
    drawn: np.ndarray, instances: InstanceData, scale: float, colours: Sequence[Colour], alpha: float, with_boxes: bool
) -> np.ndarray:
    """Draw masks and boxes on an image (H, W, 3), the largest first.

    Args:
        drawn: the image, changed.
        instances: with masks or boxes in pixels before the image was resized.
        scale: factor of the resizing.
        colours: of each object.
        alpha: how much of a colour covers the image.
        with_boxes: draw the boxes of objects that have masks too.

    Returns:
        Boxes (N, 4) of what was drawn.
    """
    boxes = instances.get('bboxes')
    boxes = np.asarray(getattr(boxes, 'tensor', boxes) if boxes is not None else np.zeros((len(colours), 4)), float)
    boxes = np.nan_to_num(boxes * scale).clip(-1, max(drawn.shape))
    crops = list(_crops(instances.get('masks'), len(colours), scale, drawn.shape[:2]))
    shown = boxes.copy()
    for i, crop in enumerate(crops):
        if crop is not None and not (with_boxes and (boxes[i, 2:] > boxes[i, :2]).all()):
            height, width = crop.mask.shape
            shown[i] = (crop.left, crop.top, crop.left + width, crop.top + height)
    sizes = shown[:, 2:] - shown[:, :2]
    width = 2 if np.median(sizes.min(1)) >= LARGE else 1
    order = np.argsort(-sizes.prod(1), kind='stable')
    for i in order:
        if (crop := crops[i]) is not None:
            region, inside = crop.of(drawn), crop.mask > 0
            region[inside] = (1 - alpha) * region[inside] + alpha * np.array(colours[i])
    for i in order:
        if (crop := crops[i]) is not None:
            inside = cv2.erode(crop.mask, CROSS, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            crop.of(drawn)[crop.mask > inside] = colours[i]
        if crop is None or with_boxes:
            x1, y1, x2, y2 = boxes[i].round().astype(int).tolist()
            cv2.rectangle(drawn, (x1, y1), (x2 - 1, y2 - 1), colours[i])
    return shown


def _crops(masks: Any, number: int, scale: float, size: tuple[int, int]) -> Iterator[Crop | None]:
    """Yield the resized masks of objects, one at a time; None for an object without one.

    Args:
        masks: run-length encoded, polygons, bitmaps, an array or a tensor (N, H, W), or None.
        number: of objects.
        scale: factor of the resizing.
        size: height and width of the drawn image.
    """
    if masks is None:
        yield from [None] * number
    elif isinstance(masks, PolygonMasks):
        for parts in masks.masks:
            yield _fill([np.reshape(part, (-1, 2)) * scale - 0.5 for part in parts], size)
    elif isinstance(masks, RLEMasks):
        for rle in masks:
            part, x, y = rle.crop()
            yield _resize(part, x, y, scale, size)
    else:
        for mask in masks.masks if isinstance(masks, BitmapMasks) else np.asarray(masks, bool):
            x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
            yield _resize(mask[y : y + height, x : x + width], x, y, scale, size)


def _fill(parts: Sequence[np.ndarray], size: tuple[int, int]) -> Crop | None:
    """Return the inside of polygons (N, 2) in pixels of an image of a size (height, width)."""
    if not parts:
        return None
    points = np.concatenate(parts)
    left, top = np.floor(points.min(0)).astype(int).clip(0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 1, size[::-1])
    if right <= left or bottom <= top:
        return None
    mask = np.zeros((bottom - top, right - left), np.uint8)
    for part in parts:
        cv2.fillPoly(mask, [np.round((part - (left, top)) * 16).astype(np.int32)], 1, shift=4)
    return Crop(mask, left, top) if mask.any() else None


def _resize(part: np.ndarray, x: int, y: int, scale: float, size: tuple[int, int]) -> Crop | None:
    """Return the part of a mask (h, w) at (x, y) as it is in the resized image of a size (height, width)."""
    left, top = int(x * scale), int(y * scale)
    right = min(int(np.ceil((x + part.shape[1]) * scale)), size[1])
    bottom = min(int(np.ceil((y + part.shape[0]) * scale)), size[0])
    if right <= left or bottom <= top or not part.size:
        return None
    shift = ((x + 0.5) * scale - 0.5 - left, (y + 0.5) * scale - 0.5 - top)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    resized = cv2.warpAffine(part.astype(np.uint8) * 255, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    mask = (resized > 127).astype(np.uint8)
    return Crop(mask, left, top) if mask.any() else None


def _draw_labels(drawn: np.ndarray, boxes: np.ndarray, captions: Sequence[Caption], font_size: int) -> bool:
    """Draw the labels that have room on an image (H, W, 3); return whether all had."""
    places = place_labels(boxes, [caption.size(font_size) for caption in captions], drawn.shape[:2])
    image = Image.fromarray(drawn)
    draw = ImageDraw.Draw(image)
    for caption, place in zip(captions, places, strict=True):
        if place is not None:
            caption.draw(draw, *place, font_size)
    drawn[...] = np.asarray(image)
    return None not in places
