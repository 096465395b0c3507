"""RoIAlign on a CPU, compared with MMCV's."""

import pytest
import torch
from mmcv.ops import RoIAlign
from torch import Tensor, nn

from centermask import ScaleAdaptiveRoIExtractor
from centermask.fast import roi_align
from centermask.fast.roi_align import FusedRoIExtractor

SIZES = ((24, 32), (12, 16))


def _feats(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, *size, generator=generator).to(dtype) for size in SIZES]


def _layers(ratio: int, aligned: bool) -> nn.ModuleList:
    return nn.ModuleList(RoIAlign((4, 7), 1 / stride, ratio, aligned=aligned) for stride in (8, 16))


def _rois() -> Tensor:
    """Return small and large RoIs, beyond every edge, outside, and without area."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(60, 2, generator=generator) * torch.tensor([300.0, 230]) - 20
    boxes = torch.cat([corners, corners + torch.rand(60, 2, generator=generator) ** 3 * 300], dim=1)
    odd = [[0, 0, 256, 192], [-900, -900, 900, 900], [40, 40, 40, 90], [-90, -90, -60, -60]]
    boxes = torch.cat([boxes, torch.tensor(odd), torch.tensor([[-3000.0, 0, 2500, 190]])])
    return torch.cat([torch.arange(len(boxes))[:, None] % 2, boxes], dim=1)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 1, 2])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_equals_mmcv(ratio: int, aligned: bool, memory_format: torch.memory_format) -> None:
    rois, layers = _rois(), _layers(ratio, aligned)
    levels = torch.arange(len(rois)) % 3 % 2
    found = roi_align.pool([feat.contiguous(memory_format=memory_format) for feat in _feats()], rois, levels, layers)
    assert found.shape == (len(rois), 5, 4, 7) and found.is_contiguous(memory_format=torch.channels_last)
    for roi, level, features in zip(rois, levels.tolist(), found, strict=True):
        torch.testing.assert_close(features, layers[level](_feats()[level], roi[None])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('odd', [float('nan'), float('inf')])
def test_nan_and_infinite_coordinates(odd: float) -> None:
    """Boxes of a network that diverged do no harm."""
    rois = torch.tensor([[0, 8, 8, odd, 60.0], [0, 8, 8, 90, 60]])
    found = roi_align.pool(_feats(), rois, torch.zeros(2, dtype=torch.long), _layers(0, True))
    assert not found[0].any() and found[1].isfinite().all() and found[1].any()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('pool_mode', ['avg', 'max'])
def test_fused_extractor_gives_the_same(pool_mode: str, dtype: torch.dtype) -> None:
    """The fused extractor uses the faster RoIAlign where it can, else MMCV's operator level by level."""
    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=0, pool_mode=pool_mode)
    plain = ScaleAdaptiveRoIExtractor(layer, out_channels=5, featmap_strides=(8, 16))
    areas = torch.full((2,), 192.0 * 256)
    for rois in (_rois(), _rois()[:0]):
        expected = plain(_feats(dtype), rois, areas)
        found = FusedRoIExtractor(plain)(_feats(dtype), rois, areas)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
