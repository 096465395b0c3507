"""Detections on the frames of a video: of their size, in colours that stay, within a few milliseconds."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmengine.structures import InstanceData

from centermask.structures.captions import Caption
from centermask.structures.fonts import drawable_names
from centermask.structures.object_drawing import draw_labels, draw_objects
from centermask.structures.panoptic_drawing import draw_panoptic
from centermask.structures.rle_masks import RLEMasks
from centermask.structures.visualizer import MAX_LABELLED, class_colours, distinct_colours, font_size_for

TRACK_COLOURS = 48
ALPHA = 0.35


class FrameDrawing:
    """Draws detections with a colour for each class or, where they are tracked, for each track.

    Args:
        meta: the model's ``dataset_meta``: ``classes``, ``palette`` and of a panoptic model ``stuff_classes``.
        score_thr: the least score of a detection that is drawn.
    """

    def __init__(self, meta: dict[str, Any], score_thr: float) -> None:
        self._names = drawable_names((*meta['classes'], *meta.get('stuff_classes', ())))
        self._colours = class_colours(meta.get('palette'), len(self._names))
        self._score_thr = score_thr

    def objects(self, image: np.ndarray, found: InstanceData, track_ids: np.ndarray | None = None) -> np.ndarray:
        """Return a BGR image (H, W, 3) in RGB with its objects: masks, and unless they are many boxes and labels.

        Args:
            image: of the frame.
            found: ``bboxes``, ``scores``, ``labels`` and maybe ``masks``, as arrays.
            track_ids: of the objects, (N,); −1 for those without one.
        """
        drawn = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        shown = found.scores >= self._score_thr
        labels = found.labels[shown].tolist()
        if not labels:
            return drawn
        chosen = InstanceData(bboxes=found.bboxes[shown])
        if 'masks' in found:
            masks = [found.masks[i] for i in np.flatnonzero(shown)]
            chosen.masks = RLEMasks(masks, found.masks.image_size) if isinstance(found.masks, RLEMasks) else masks
        colours = [self._colours[label] for label in labels]
        texts = [self._names[label] for label in labels]
        if track_ids is not None:
            by_track = distinct_colours(TRACK_COLOURS)
            for i, track in enumerate(track_ids[shown].tolist()):
                if track >= 0:
                    colours[i] = by_track[track % TRACK_COLOURS]
                    texts[i] = f'{texts[i]} #{track}'
        few = len(labels) <= MAX_LABELLED
        boxes = draw_objects(drawn, chosen, 1.0, colours, ALPHA, few)
        if few:
            scores = [f'{100 * score:.0f}' for score in found.scores[shown].tolist()]
            captions = [Caption(*text) for text in zip(texts, scores, colours, strict=True)]
            draw_labels(drawn, boxes, captions, font_size_for(drawn))
        return drawn

    def panoptic(self, image: np.ndarray, panoptic: np.ndarray) -> np.ndarray:
        """Return a BGR image (H, W, 3) in RGB with the segments of a panoptic map (H, W), without a legend."""
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        drawn = draw_panoptic(
            rgb, panoptic, self._names, self._colours, 2 * ALPHA, font_size_for(rgb), max_labelled=MAX_LABELLED
        )
        return np.ascontiguousarray(drawn[:, : rgb.shape[1]])
