"""Winograd's algorithm computes what the convs do."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from centermask.fast import winograd
from centermask.fast.fused_layers import fuse_for_inference
from centermask.fast.reordered_conv import ReorderedConv, has_onednn_operators
from centermask.fast.winograd import LEAST_TILES, TILES_AT_ONCE, WinogradConv

pytestmark = pytest.mark.skipif(not has_onednn_operators(torch.float32), reason="torch has no oneDNN's operators")


@pytest.fixture(autouse=True)
def on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, 'runs_products_fast', lambda: True)


def deviation(conv: nn.Conv2d, found: Tensor, x: Tensor) -> float:
    """Return the largest deviation from the exact result, in its standard deviations."""
    bias = None if conv.bias is None else conv.bias.double()
    exact = F.conv2d(x.double(), conv.weight.double(), bias, padding=1)
    assert found.shape == exact.shape
    return ((found - exact).abs().max() / exact.std()).item()


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', [(1, 90, 81), (50, 14, 14), (2, 9, 100)], ids=['rows', 'RoIs', 'batch'])
@torch.no_grad()
def test_results_are_the_convs(shape: tuple[int, int, int], bias: bool) -> None:
    """Sizes that aren't multiples of a tile; more tiles than are computed at once, in one image and in several."""
    torch.manual_seed(0)
    images, height, width = shape
    conv = nn.Conv2d(192, 160, 3, padding=1, bias=bias)
    fused = WinogradConv(conv)
    x = torch.randn(images, 192, height, width).to(memory_format=torch.channels_last)
    found = fused(x)
    assert fused.products is not None
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert deviation(conv, found, x) < 5e-5
    assert images * (height // 4) * (width // 4) > (LEAST_TILES if shape[0] == 2 else TILES_AT_ONCE)


@torch.no_grad()
def test_few_tiles_are_left_to_onednn() -> None:
    conv = nn.Conv2d(128, 128, 3, padding=1)
    fused = WinogradConv(conv)
    for shape in ((1, 128, 16, 16), (0, 128, 14, 14)):
        x = torch.randn(shape)
        torch.testing.assert_close(fused(x), conv(x), rtol=1e-4, atol=1e-4)
    assert fused.products is None


@pytest.mark.parametrize(
    ('conv', 'fast'),
    [
        (nn.Conv2d(128, 128, 3, padding=1), True),
        (nn.Conv2d(64, 64, 3, padding=1), False),
        (nn.Conv2d(256, 4, 3, padding=1), False),
        (nn.Conv2d(256, 256, 1), False),
        (nn.Conv2d(256, 256, 3, stride=2, padding=1), False),
        (nn.Conv2d(256, 256, 3, padding=2, dilation=2), False),
        (nn.Conv2d(256, 256, 3, padding=1, groups=2), False),
        (nn.Conv2d(256, 256, 3, padding=1).bfloat16(), False),
    ],
    ids=str,
)
def test_wide_convs_over_neighbours_run_so(conv: nn.Conv2d, fast: bool) -> None:
    fused = fuse_for_inference(nn.Sequential(conv))[0]
    assert isinstance(fused, WinogradConv) == fast
    assert isinstance(fused, ReorderedConv) or conv.weight.dtype != torch.float32


def test_other_processors_keep_onednns_convs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, 'runs_products_fast', lambda: False)
    fused = fuse_for_inference(nn.Sequential(nn.Conv2d(256, 256, 3, padding=1)))[0]
    assert type(fused) is ReorderedConv
