"""TensorMask's ``swap_align2nat``: masks that lie on the pixels they describe become masks of windows.

The aligned mask at a pixel of the finest level has V × U cells, and cell (v, u) is about this very pixel as seen from a
window. The natural mask of a window gathers what the pixels in it say about themselves. With λ as the ratio of the
level's stride to the finest, and V = U:

    natural(v, u, y, x) = aligned at the cell (v + ½)/λ − ½, (u + ½)/λ − ½
                          and the pixel λy + v − λV/2 + ½, λx + u − λU/2 + ½

interpolated linearly in all four coordinates. What lies outside the aligned masks has the value of the padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

PADDING = -6.0  # a logit: background
AT_ONCE = 1 << 22  # values computed at once, to bound the memory of their indices


class Places(NamedTuple):
    """Places of M windows on the maps of their level."""

    images: Tensor  # (M,), index of the image
    rows: Tensor  # (M,)
    columns: Tensor  # (M,)


def swap_align2nat(aligned: Tensor, scale: int, padding: float = PADDING) -> Tensor:
    """Return the natural masks of the windows at all places, shape (N, (λV)², ⌈H/λ⌉, ⌈W/λ⌉).

    Args:
        aligned: shape (N, V², H, W).
        scale: λ, the stride of the windows in pixels of ``aligned``.
        padding: the value outside.
    """
    images, _, height, width = aligned.shape
    sizes = (images, -(-height // scale), -(-width // scale))
    grid = torch.meshgrid(*(torch.arange(size, device=aligned.device) for size in sizes), indexing='ij')
    masks = natural_masks(aligned, scale, Places(*(axis.flatten() for axis in grid)), padding)
    return masks.reshape(*sizes, -1).permute(0, 3, 1, 2)


def natural_masks(aligned: Tensor, scale: int, places: Places, padding: float = PADDING) -> Tensor:
    """Return the natural masks of M windows alone, shape (M, λV, λV); the rest of the swap isn't computed.

    Args:
        aligned, scale, padding: as :func:`swap_align2nat` takes them.
        places: of the windows.
    """
    return _Interpolation.apply(aligned, scale, places, padding)


class _Interpolation(torch.autograd.Function):
    """Sums of 16 neighbours of each value.

    For each of the 16, torch's own operators would keep indices for the backward pass, and there add up a gradient of
    the whole map.
    """

    @staticmethod
    def forward(ctx: Any, aligned: Tensor, scale: int, places: Places, padding: float) -> Tensor:
        ctx.shape, ctx.dtype, ctx.scale, ctx.places = aligned.shape, aligned.dtype, scale, places
        dtype = torch.promote_types(aligned.dtype, torch.float32)
        values = aligned.flatten().to(dtype)
        parts = []
        for part in _parts(places, scale, aligned.shape):
            rows, columns = _axes(part, scale, aligned.shape, dtype)
            inside_y, inside_x = (torch.stack([n.weight for n in axis]).sum(0) for axis in (rows, columns))
            masks = padding * (1 - inside_y[:, :, None] * inside_x[:, None])  # (m, λV, λV)
            for row in rows:
                along = torch.zeros_like(masks)
                for column in columns:
                    index = row.offset[:, :, None] + column.offset[:, None]
                    along.addcmul_(values.take(index), column.weight[:, None])
                masks.addcmul_(along, row.weight[:, :, None])
            parts.append(masks)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        total = gradient.new_zeros(ctx.shape.numel())
        done = 0
        for part in _parts(ctx.places, ctx.scale, ctx.shape):
            of_part = gradient[done : done + len(part.rows)]
            done += len(part.rows)
            rows, columns = _axes(part, ctx.scale, ctx.shape, gradient.dtype)
            for row in rows:
                along = of_part * row.weight[:, :, None]
                for column in columns:
                    index = row.offset[:, :, None] + column.offset[:, None]
                    total.index_add_(0, index.flatten(), (along * column.weight[:, None]).flatten())
        return total.view(ctx.shape).to(ctx.dtype), None, None, None


class _Neighbour(NamedTuple):
    """One of the neighbours of each value along an axis: its part of the flat index, and its weight, 0 outside."""

    offset: Tensor  # (M, λV)
    weight: Tensor  # (M, λV)


def _parts(places: Places, scale: int, shape: torch.Size) -> Iterator[Places]:
    """Yield the places, as many at once as ``AT_ONCE`` allows, at least one part."""
    count = max(AT_ONCE // (scale**2 * shape[1]), 1)
    yield from (Places(*part) for part in zip(*(axis.split(count) for axis in places), strict=True))


def _axes(
    places: Places, scale: int, shape: torch.Size, dtype: torch.dtype
) -> tuple[list[_Neighbour], list[_Neighbour]]:
    """Return the neighbours along (v, y) and along (u, x). Their indices add up to one into the flat aligned masks.

    Args:
        places: of M windows.
        scale: λ.
        shape: of the aligned masks, (N, V², H, W).
        dtype: of the weights.
    """
    _, channels, height, width = shape
    cells = round(channels**0.5)
    rows = _neighbours(places.rows, scale, cells, height, (cells * height * width, width), dtype)
    columns = _neighbours(places.columns, scale, cells, width, (height * width, 1), dtype)
    first = places.images[:, None] * (channels * height * width)
    return [row._replace(offset=row.offset + first) for row in rows], [*columns]


def _neighbours(
    places: Tensor, scale: int, cells: int, length: int, strides: tuple[int, int], dtype: torch.dtype
) -> Iterator[_Neighbour]:
    """Yield the neighbours along an axis of the masks and of the image.

    Args:
        places: of M windows along the axis.
        scale: λ.
        cells: V.
        length: of the map, in pixels.
        strides: of a cell and of a pixel in the flat aligned masks.
        dtype: of the weights.
    """
    v = torch.arange(scale * cells, device=places.device)
    cell = (v.double() + 0.5) / scale - 0.5  # (λV,)
    pixel = scale * places[:, None] + v - scale * cells / 2 + 0.5  # (M, λV)
    # Where all coordinates are whole, the next neighbour has no weight.
    for i in (0, 1) if scale > 1 else (0,):
        for j in (0, 1) if scale * cells % 2 == 0 else (0,):
            c, p = cell.floor() + i, pixel.floor() + j
            weight = (1 - (cell - c).abs()) * (1 - (pixel - p).abs())
            weight = weight * ((c >= 0) & (c < cells) & (p >= 0) & (p < length))
            index = c.clamp(0, cells - 1).long() * strides[0] + p.clamp(0, length - 1).long() * strides[1]
            yield _Neighbour(index, weight.to(dtype))
