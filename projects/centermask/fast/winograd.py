"""3×3 convs by Winograd's algorithm, F(4×4, 3×3) of Lavin and Gray (2016), in torch's matrix products.

A tile of 4×4 results takes 36 products a pair of channels instead of 144, and transforms of its values. Results
deviate from the exact ones by 2e-6 of their standard deviation, a direct conv's by 6e-7.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from centermask.fast.reordered_conv import ReorderedConv

TILE, KERNEL = 4, 3
WINDOW = TILE + KERNEL - 1  # rows and columns that a tile reads
# Where polynomials are multiplied, besides infinity. These round less than 0, ±1, ±2 (Barabasz et al., 2020).
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)

# Products to a value that is transformed, from which on the transforms are worth their time: 112 channels in and out.
LEAST_CHANNELS = 56
LEAST_TILES = 32  # of fewer, reading the weights takes longer than computing
TILES_AT_ONCE = 400  # so that what is computed of them stays in a cache


@functools.cache
def runs_products_fast() -> bool:
    """Return whether torch's matrix products are as fast as its convs: on Intel's processors.

    torch computes float32 products by Intel's MKL, which uses AVX-512 on Intel's processors alone, and convs by oneDNN,
    which uses it on any.
    """
    capabilities: dict = getattr(torch.cpu, 'get_capabilities', dict)()
    return torch.backends.mkl.is_available() and str(capabilities.get('cpu_name', '')).startswith('Intel')


def suits_winograd(conv: nn.Conv2d) -> bool:
    """Return whether a conv that :class:`ReorderedConv` takes can run in less time as a :class:`WinogradConv`."""
    ones = (1, 1)
    return (
        conv.weight.dtype == torch.float32
        and conv.kernel_size == (KERNEL, KERNEL)
        and (conv.stride, conv.padding, conv.dilation, conv.groups) == (ones, ones, ones, 1)
        and _channels(conv) >= LEAST_CHANNELS
        and runs_products_fast()
    )


def _channels(conv: nn.Conv2d) -> float:
    """Return how many channels there are to a value that is transformed: products over transformed channels."""
    return conv.in_channels * conv.out_channels / (conv.in_channels + conv.out_channels)


@functools.cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices of Y = Aᵀ [(G g) ⊙ (Bᵀ d)], the conv of a window d (6 · 6,) and a kernel g (3 · 3,).

    Returns:
        Aᵀ (16, 36), Bᵀ (36, 36) and G (36, 9), float64.
    """
    # Those of one axis; the matrix of both is the Kronecker product with itself.
    output = np.zeros((TILE, WINDOW))
    output[:, :-1] = np.array(POINTS) ** np.arange(TILE)[:, None]
    output[-1, -1] = 1
    kernel = np.zeros((WINDOW, KERNEL))
    for row, point in zip(kernel, POINTS, strict=False):
        row[:] = point ** np.arange(KERNEL) / np.prod([point - other for other in POINTS if other != point])
    kernel[-1, -1] = 1
    # For the kernel that is 1 at k, Y is the window from k on. This determines Bᵀ.
    left = np.concatenate([output * kernel[:, k] for k in range(KERNEL)])
    right = np.concatenate([np.eye(TILE, WINDOW, k) for k in range(KERNEL)])
    window = np.linalg.lstsq(left, right, rcond=None)[0]
    of_output, of_window, of_kernel = (torch.from_numpy(np.kron(each, each)) for each in (output, window, kernel))
    return of_output, of_window, of_kernel


class WinogradConv(ReorderedConv):
    """A conv that runs by Winograd's algorithm where this takes less time than oneDNN's.

    Args:
        conv: of :func:`suits_winograd`.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.channels = _channels(conv)
        self.products: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return conv(x), shape (N, C, H, W), for an input of any type."""
        images, _, height, width = x.shape
        tiles = images * -(-height // TILE) * -(-width // TILE)
        filled = images * height * width / (tiles * TILE**2) if tiles else 0
        if tiles < LEAST_TILES or self.channels * filled < LEAST_CHANNELS:
            return super().forward(x)
        return self._in_tiles(x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last))

    def _in_tiles(self, x: Tensor) -> Tensor:
        """Return conv(x) for a channels-last input."""
        of_output, of_window = (matrix.float() for matrix in transforms()[:2])
        if self.products is None:
            self.products = self._transformed_weight()
        images, channels, height, width = x.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1 + columns * TILE - width, 1, 1 + rows * TILE - height))
        of_image, of_row, of_column, _ = padded.stride()
        result = x.new_empty(images, rows * TILE, columns * TILE, self.out_channels)
        tiles = result.view(images, rows, TILE, columns, TILE, -1).permute(2, 4, 0, 1, 3, 5)
        images_at_once, rows_at_once = max(TILES_AT_ONCE // (rows * columns), 1), max(TILES_AT_ONCE // columns, 1)
        for image in range(0, images, images_at_once):
            for row in range(0, rows, rows_at_once):
                part = tiles[:, :, image : image + images_at_once, row : row + rows_at_once]
                windows = padded.as_strided(
                    (WINDOW, WINDOW, *part.shape[2:5], channels),
                    (of_row, of_column, of_image, of_row * TILE, of_column * TILE, 1),
                    image * of_image + row * TILE * of_row,
                )
                values = torch.mm(of_window, windows.reshape(WINDOW**2, -1)).view(WINDOW**2, -1, channels)
                values = torch.bmm(values, self.products).view(WINDOW**2, -1)
                values = torch.mm(of_output, values).view(part.shape)
                part.copy_(values) if self.bias is None else torch.add(values, self.bias, out=part)
        return result[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _transformed_weight(self) -> Tensor:
        """Return the products' right sides, shape (36, C in, C out): four times the memory of the weight."""
        taps = self.weight.double().permute(2, 3, 1, 0).reshape(KERNEL**2, -1)
        return (transforms()[2] @ taps).float().view(WINDOW**2, -1, self.out_channels)
