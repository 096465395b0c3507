"""RoIAlign on a CPU, several times as fast as MMCV's, which reads memory channel by channel in one thread.

A cell of the result is a weighted sum over locations of the feature map. Torch's ``embedding_bag`` computes such sums
in all threads, and channels-last memory holds the channels of a location side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from centermask.scale_adaptive_roi_extractor import ScaleAdaptiveRoIExtractor


class FusedRoIExtractor(ScaleAdaptiveRoIExtractor):
    """A :class:`ScaleAdaptiveRoIExtractor` that waits for the device once and has a faster RoIAlign on a CPU.

    Args:
        extractor: to take settings and RoI layers from.
    """

    def __init__(self, extractor: ScaleAdaptiveRoIExtractor) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(vars(extractor))

    def forward(self, feats: Sequence[Tensor], rois: Tensor, image_areas: Tensor) -> Tensor:
        """Return features of the RoIs, shape (R, C, 14, 14) for a 14×14 ``roi_layer``; channels-last on a CPU.

        Args:
            feats, rois, image_areas: as in the plain extractor.
        """
        if not len(rois):
            return rois.new_zeros(0, self.out_channels, *self.roi_layers[0].output_size, dtype=torch.float32)
        rois = rois.float()
        levels = self.map_roi_levels(rois, image_areas)
        if rois.device.type == 'cpu' and getattr(self.roi_layers[0], 'pool_mode', None) == 'avg':
            return pool(feats, rois, levels, self.roi_layers)
        levels_on_host = levels.cpu().numpy()  # the one wait
        order = np.argsort(levels_on_host, kind='stable')
        groups = rois[torch.from_numpy(order).to(rois.device)].split(
            np.bincount(levels_on_host, minlength=len(feats)).tolist()
        )
        pooled = [
            layer(feat.float().contiguous(), group)
            for feat, group, layer in zip(feats, groups, self.roi_layers, strict=True)
            if len(group)
        ]
        return torch.cat(pooled)[torch.from_numpy(np.argsort(order)).to(rois.device)]


def pool(feats: Sequence[Tensor], rois: Tensor, levels: Tensor, roi_layers: Sequence[Any]) -> Tensor:
    """Return the results of MMCV's RoIAlign on each RoI's level, shape (R, C, 14, 14) for 14×14 layers, channels-last.

    Args:
        feats: one (N, C, H, W) a level, in any memory format.
        rois: image index in the batch, x1, y1, x2, y2, float32, shape (R, 5).
        levels: index into ``feats`` of each RoI's level, shape (R,).
        roi_layers: one ``RoIAlign`` a level, with ``pool_mode='avg'``.
    """
    on_host = torch.cat([rois, levels[:, None]], dim=1).cpu().numpy()  # one wait
    rois_, levels_ = on_host[:, :5], on_host[:, 5]
    pooled, order = [], []
    for i, (feat, layer) in enumerate(zip(feats, roi_layers, strict=True)):
        if len(of_level := np.flatnonzero(levels_ == i)):
            cells, order_of_level = _pool_level(feat, rois_[of_level], layer)
            pooled.append(cells)
            order.append(of_level[order_of_level])
    positions = np.argsort(np.concatenate(order))
    cells = torch.cat(pooled).view(len(rois), -1)[torch.from_numpy(positions)]
    return cells.view(-1, *roi_layers[0].output_size, feats[0].shape[1]).permute(0, 3, 1, 2)


def _pool_level(feat: Tensor, rois: np.ndarray, layer: Any) -> tuple[Tensor, np.ndarray]:
    """Return the cells of one level's RoIs (R, 5), shape (R · rows · columns, C), and the RoIs' order in them."""
    height, width = feat.shape[2:]
    rows, columns = layer.output_size
    boxes = rois[:, 1:] * np.float32(layer.spatial_scale) - np.float32(0.5 if layer.aligned else 0)
    sides = boxes[:, 2:] - boxes[:, :2]
    if not layer.aligned:
        sides = np.maximum(sides, np.float32(1))
    steps = sides / np.array([columns, rows], np.float32)
    counts = np.full(steps.shape, layer.sampling_ratio)
    if not layer.sampling_ratio:  # samples at most a location apart
        counts = np.ceil(np.where(np.isfinite(steps), steps, 0)).astype(int)
    locations, weights, sizes, order = [], [], [], []
    for x_count, y_count in np.unique(counts, axis=0).tolist():  # RoIs with equally many samples together
        group = np.flatnonzero((counts == (x_count, y_count)).all(1))
        x, x_weights = _samples(boxes[group, 0], steps[group, 0], width, columns, x_count)
        y, y_weights = _samples(boxes[group, 1], steps[group, 1], height, rows, y_count)
        y = y + rois[group, 0].astype(int)[:, None, None] * height
        locations.append((y[:, :, None, :, None] * width + x[:, None, :, None, :]).ravel())
        weights.append((y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]).ravel())
        sizes.append(np.full(len(group) * rows * columns, x.shape[2] * y.shape[2]))
        order.append(group)
    ends = np.cumsum(np.concatenate(sizes))
    pooled = F.embedding_bag(
        torch.from_numpy(np.concatenate(locations)),
        feat.float().permute(0, 2, 3, 1).flatten(0, 2),
        torch.from_numpy(ends - np.concatenate(sizes)),
        mode='sum',
        per_sample_weights=torch.from_numpy(np.concatenate(weights)),
    )
    return pooled, np.concatenate(order)


def _samples(low: np.ndarray, steps: np.ndarray, length: int, cells: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, along one axis, the locations that each cell averages and their weights, both of shape (R, cells, S).

    Args:
        low: start of each RoI, in locations of the map, shape (R,).
        steps: length of a cell of each RoI, in locations, shape (R,).
        length: number of locations of the map.
        cells: number of cells of a RoI.
        count: number of samples a cell.
    """
    steps = steps[:, None, None]
    samples = (np.arange(count, dtype=np.float32) + np.float32(0.5)) * steps / max(count, 1)
    samples = low[:, None, None] + np.arange(cells, dtype=np.float32)[:, None] * steps + samples
    inside = (samples >= -1) & (samples <= length)
    samples = np.where(inside, samples, 0).clip(0, length - 1)
    rest, first = np.modf(samples)
    first = first.astype(np.int64)
    locations = np.concatenate([first, np.minimum(first + 1, length - 1)], axis=2)
    weights = np.concatenate([(1 - rest) * inside, rest * inside], axis=2) / np.float32(max(count, 1))
    if locations.shape[2] > length:  # RoIs far larger than the map take each location once
        sums = np.zeros((len(low), cells, length), np.float32)
        np.add.at(sums, (np.arange(len(low))[:, None, None], np.arange(cells)[:, None], locations), weights)
        return np.broadcast_to(np.arange(length), sums.shape), sums
    return locations, weights
