"""TensorMask's swap of units: the numbers of the original kernel, gradients, and windows computed alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.read_configs import read_config
from parity import compare_with_reference, read_arrays
from torch import Tensor

from centermask.baselines import swap_align2nat as module
from centermask.baselines.swap_align2nat import Places, natural_masks, swap_align2nat


def test_is_the_original_kernels(shared: Path) -> None:
    """Values and gradients, at ratios of 1, 2 and 4, by the command's comparison."""
    file = shared / 'parity/baselines/swap_align2nat.npz'
    config = read_config('tensormask_r50_fpn_1x_coco')
    rows = compare_with_reference(config, read_arrays(file, 'expected file'), file)
    assert len(rows) == 8
    assert [row for row in rows if not row.ok] == []


def _expected(aligned: Tensor, scale: int, padding: float) -> Tensor:
    """Compute the equation value by value and neighbour by neighbour."""
    images, channels, height, width = aligned.shape
    cells = round(channels**0.5)
    source = aligned.view(images, cells, cells, height, width)
    side, rows, columns = scale * cells, -(-height // scale), -(-width // scale)
    natural = torch.zeros(images, side, side, rows, columns, dtype=aligned.dtype)
    for n, v, u, y, x in np.ndindex(natural.shape):
        at = (
            (v + 0.5) / scale - 0.5,
            (u + 0.5) / scale - 0.5,
            scale * y + v - side / 2 + 0.5,
            scale * x + u - side / 2 + 0.5,
        )
        for corner in np.ndindex(2, 2, 2, 2):
            index = [int(np.floor(a)) + c for a, c in zip(at, corner, strict=True)]
            weight = np.prod([1 - abs(a - i) for a, i in zip(at, index, strict=True)])
            inside = all(0 <= i < length for i, length in zip(index, source.shape[1:], strict=True))
            natural[n, v, u, y, x] += weight * (source[(n, *index)].item() if inside else padding)
    return natural.reshape(images, side**2, rows, columns)


@pytest.mark.parametrize(
    ('scale', 'cells', 'height', 'width'),
    [(1, 3, 2, 3), (1, 2, 3, 3), (2, 3, 5, 4), (3, 2, 4, 7)],  # whole and half coordinates; sides that λ divides or not
)
def test_equation(scale: int, cells: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    aligned = torch.randn(2, cells**2, height, width, dtype=torch.double, generator=generator)
    torch.testing.assert_close(swap_align2nat(aligned, scale, 2.5), _expected(aligned, scale, 2.5))
    channels_last = aligned.to(memory_format=torch.channels_last)
    torch.testing.assert_close(swap_align2nat(channels_last, scale), swap_align2nat(aligned, scale))


def test_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    aligned = torch.randn(2, 4, 5, 6, dtype=torch.double, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: swap_align2nat(x, 2), aligned)


@pytest.mark.parametrize('at_once', [1, 1 << 22])
def test_windows_alone(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks of some windows, and their gradients, are those of the full swap, however many are computed at once."""
    monkeypatch.setattr(module, 'AT_ONCE', at_once)
    generator = torch.Generator().manual_seed(0)
    aligned = torch.randn(2, 25, 8, 12, generator=generator, requires_grad=True)
    places = Places(torch.tensor([1, 0, 0, 1]), torch.tensor([0, 1, 1, 1]), torch.tensor([2, 0, 0, 1]))
    alone = natural_masks(aligned, 4, places)
    full = swap_align2nat(aligned, 4)[places.images, :, places.rows, places.columns].view(4, 20, 20)
    assert torch.equal(alone, full)
    factors = torch.randn(alone.shape, generator=generator)
    gradients = [torch.autograd.grad((masks * factors).sum(), aligned)[0] for masks in (alone, full)]
    torch.testing.assert_close(*gradients)


def test_half_precision() -> None:
    """Sums are single precision; the gradient has the type of the masks."""
    aligned = torch.randn(1, 9, 6, 6, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    natural = swap_align2nat(aligned, 2)
    assert natural.dtype == torch.float32
    torch.testing.assert_close(natural, swap_align2nat(aligned.float(), 2))
    natural.sum().backward()
    assert aligned.grad.dtype == torch.bfloat16
