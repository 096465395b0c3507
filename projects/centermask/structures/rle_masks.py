"""Masks in COCO's run-length encoding, decoded one at a time where code wants arrays."""

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
        ends = np.cumsum(_run_lengths(self['counts'])).clip(left * rows, (left + width) * rows)
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


def _run_lengths(counts: bytes | str) -> np.ndarray:
    """Return the lengths of a mask's runs of 0 and 1 in turn, of COCO's compressed form.

    A character has five bits of a number, and a sixth where more follow; the last one's fifth bit is the sign. From the
    fourth on, numbers are differences to the one two before.
    """
    codes = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    lasts = np.flatnonzero(codes < 32)
    firsts = np.append(0, lasts[:-1] + 1)
    sizes = lasts - firsts + 1
    places = np.arange(len(codes)) - np.repeat(firsts, sizes)
    numbers = np.add.reduceat((codes & 31) << 5 * places, firsts) - ((codes[lasts] & 16) > 0) * (1 << 5 * sizes)
    numbers[1::2], numbers[2::2] = np.cumsum(numbers[1::2]), np.cumsum(numbers[2::2])
    return numbers
