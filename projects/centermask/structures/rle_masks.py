"""Masks in COCO's run-length encoding (RLE), decoded one at a time where code wants arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import pycocotools.mask as coco_mask
import torch
from torch import Tensor


class RLE(dict):
    """A mask as COCO's dict of ``size`` and ``counts``; any other index reads the decoded array."""

    def decode(self) -> np.ndarray:
        """Return the mask, bool, shape (H, W)."""
        return coco_mask.decode(self).view(bool)

    def crop(self) -> tuple[np.ndarray, int, int]:
        """Return the part of the mask that has pixels, bool, (h, w), and its left and top; nothing else is decoded."""
        left, top, width, height = (int(value) for value in coco_mask.toBbox(self))
        rows = self['size'][0]
        ends = np.cumsum(run_lengths(self)).clip(left * rows, (left + width) * rows)
        lengths = np.diff(ends, prepend=left * rows)
        columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, rows)
        return columns[:, top : top + height].T, left, top

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.decode()[key]


class RLEMasks(Sequence):
    """The masks of one image: a sequence of RLEs that stands in for MMDetection's array (N, H, W).

    ``CocoMetric`` reads it as a list of RLEs. ``DumpDetResults`` and ``DetInferencer`` encode masks themselves; they
    get one decoded mask at a time.

    Args:
        rles: COCO's dicts.
        image_size: height and width in pixels.
    """

    def __init__(self, rles: Iterable[dict], image_size: tuple[int, int]) -> None:
        self.rles = [RLE(rle) for rle in rles]
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.rles)

    @overload
    def __getitem__(self, index: int) -> RLE: ...

    @overload
    def __getitem__(self, index: slice) -> RLEMasks: ...

    def __getitem__(self, index: int | slice) -> RLE | RLEMasks:
        chosen = self.rles[index]
        return RLEMasks(chosen, self.image_size) if isinstance(chosen, list) else chosen

    @staticmethod
    def cat(parts: Sequence[RLEMasks]) -> RLEMasks:
        """Concatenate masks of one image; ``InstanceData.cat`` calls this."""
        return RLEMasks([rle for part in parts for rle in part], parts[0].image_size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of masks, height and width."""
        return len(self), *self.image_size

    def numpy(self) -> RLEMasks:
        """Return the masks, which are on the host already."""
        return self

    def astype(self, dtype: Any) -> np.ndarray:
        """Return all masks decoded, shape (N, H, W)."""
        masks = np.zeros(self.shape, dtype)
        for mask, rle in zip(masks, self, strict=True):
            mask[...] = rle.decode()
        return masks

    def cpu(self) -> Tensor:
        """Return all masks decoded, bool, shape (N, H, W)."""
        return torch.from_numpy(self.astype(bool))


def run_lengths(rle: dict) -> list[int]:
    """Return the lengths of a mask's runs of 0 and 1 in turn, down the columns, the first of 0.

    pycocotools writes past its memory where lengths don't add up to the mask's size, so RLE from a file is validated
    here first.

    Args:
        rle: COCO's run-length encoding with ``size`` (H, W) and ``counts``, compressed or a list of numbers.

    Raises:
        ValueError: It isn't one, or its lengths don't add up to H x W.
    """
    try:
        height, width = rle['size']
        counts = rle['counts']
        lengths = counts if isinstance(counts, list) else _decompress(counts)
        if not all(isinstance(length, int) and length >= 0 for length in lengths):
            raise ValueError('the lengths of the runs are not all whole numbers from 0 up')
        if sum(lengths) != height * width:
            raise ValueError('the lengths of the runs do not add up to the size')
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError('not a run-length encoding') from error
    return lengths


def _decompress(counts: str | bytes) -> list[int]:
    """Decode COCO's compressed form.

    A character holds five bits of a number and a bit that is set where more follow; the last one has the sign. From
    the fourth on, numbers are differences to the one two before.
    """
    lengths: list[int] = []
    value = shift = 0
    for code in counts.encode() if isinstance(counts, str) else counts:
        code -= 48
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            if shift > 50:
                raise ValueError('a run is longer than any image')
            continue
        if code & 0x10:
            value -= 1 << shift
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError('the last of the runs is cut off')
    return lengths
