"""Drawing of run-length encoded masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.structures.mask import bitmap_to_polygon
from mmdet.visualization import DetLocalVisualizer, get_palette, jitter_color
from mmengine.structures import InstanceData

from centermask.structures.rle_masks import RLEMasks

MAX_LABELS = 60  # more would cover an image


@VISUALIZERS.register_module()
class CenterMaskVisualizer(DetLocalVisualizer):
    """MMDetection's visualiser that decodes :class:`RLEMasks` one at a time and labels no crowded images."""

    _crowded = False

    def draw_texts(self, *args: Any, **kwargs: Any) -> CenterMaskVisualizer:
        """Draw labels, unless they would cover the image."""
        return self if self._crowded else super().draw_texts(*args, **kwargs)

    def _draw_instances(
        self, image: np.ndarray, instances: InstanceData, classes: list[str] | None, palette: list[tuple] | None
    ) -> np.ndarray:
        """Return the RGB image (H, W, 3) with the instances drawn on it."""
        self._crowded = len(instances) > MAX_LABELS
        masks = instances.get('masks')
        if not isinstance(masks, RLEMasks):
            return super()._draw_instances(image, instances, classes, palette)
        boxes = InstanceData(**{key: value for key, value in instances.items() if key != 'masks'})
        super()._draw_instances(image, boxes, classes, palette)
        if not len(masks):
            return self.get_image()
        outlines: list[np.ndarray] = []
        for rle in masks:
            outlines.extend(bitmap_to_polygon(rle.decode())[0])
        self.draw_polygons(outlines, edge_colors='w', alpha=self.alpha)
        drawn = self.get_image().copy()
        labels = instances.labels.tolist()
        colours = get_palette(palette if self.mask_color is None else self.mask_color, max(labels) + 1)
        for rle, label in zip(masks, labels, strict=True):
            mask = rle.decode()
            drawn[mask] = (1 - self.alpha) * drawn[mask] + self.alpha * np.array(jitter_color(colours[label]))
        # matplotlib draws boxes, outlines and labels on top of it again.
        self.ax_save.imshow(drawn, extent=(0, self.width, self.height, 0), interpolation='nearest')
        return self.get_image()
