"""Eq. 1 and Eq. 2: from which level of the pyramid an RoI is pooled."""

import pytest
import torch
from mmcv.ops import RoIAlign
from torch import Tensor

from centermask import ScaleAdaptiveRoIExtractor

P3_P4, P3_P5, P3_P6, P3_P7 = (8, 16), (8, 16, 32), (8, 16, 32, 64), (8, 16, 32, 64, 128)


def _extractor(strides: tuple[int, ...] = P3_P5, **kwargs) -> ScaleAdaptiveRoIExtractor:
    roi_layer = dict(type='RoIAlign', output_size=2, sampling_ratio=2, aligned=True)
    return ScaleAdaptiveRoIExtractor(roi_layer, out_channels=1, featmap_strides=strides, **kwargs)


def _rois(*sizes: tuple[float, float]) -> Tensor:
    """Return RoIs of these widths and heights in the first image, with a corner at (3, 5)."""
    return torch.tensor([[0, 3, 5, 3 + width, 5 + height] for width, height in sizes]).reshape(-1, 5)


def _levels(extractor: ScaleAdaptiveRoIExtractor, *sizes: tuple[float, float], area: float) -> list[int]:
    """Return the numbers of the levels, 3 for P3."""
    return (extractor.map_roi_levels(_rois(*sizes), torch.tensor([float(area)])) + 3).tolist()


@pytest.mark.parametrize(
    'strides, expected',
    [
        # The whole image, over half of it, a half, over a quarter, a quarter, an eighth, a sixteenth, a 32nd, a pixel.
        (P3_P7, [7, 7, 6, 6, 5, 4, 3, 3, 3]),
        (P3_P6, [6, 6, 5, 5, 4, 3, 3, 3, 3]),
        (P3_P5, [5, 5, 4, 4, 3, 3, 3, 3, 3]),
        (P3_P4, [4, 4, 3, 3, 3, 3, 3, 3, 3]),
    ],
)
def test_eq2(strides: tuple[int, ...], expected: list[int]) -> None:
    sizes = [(64, 64), (64, 33), (64, 32), (33, 32), (32, 32), (32, 16), (16, 16), (16, 8), (1, 1)]
    assert _levels(_extractor(strides), *sizes, area=64 * 64) == expected


def test_eq2_depends_on_the_input_and_eq1_does_not() -> None:
    """The level of an RoI of 224² pixels depends on the input's size by Eq. 2, not by Eq. 1."""
    assert [_levels(_extractor(), (224, 224), area=side**2)[0] for side in (224, 300, 400, 1024)] == [5, 5, 4, 3]
    eq1 = _extractor(assignment='fpn')
    assert [_levels(eq1, (224, 224), area=side**2)[0] for side in (224, 300, 400, 1024)] == [4, 4, 4, 4]


def test_eq1() -> None:
    """k = floor(4 + log2(sqrt(w h) / 224)), clamped to the levels."""
    sizes = [(1, 1), (111, 111), (112, 112), (223, 223), (224, 224), (112, 448), (447, 447), (448, 448), (2000, 2000)]
    assert _levels(_extractor(assignment='fpn'), *sizes, area=1) == [3, 3, 3, 3, 4, 4, 4, 5, 5]
    assert _levels(_extractor(P3_P7, assignment='fpn'), *sizes, area=1) == [3, 3, 3, 3, 4, 4, 4, 5, 7]
    assert _levels(_extractor(P3_P4, assignment='fpn'), *sizes, area=1) == [3, 3, 3, 3, 4, 4, 4, 4, 4]


def test_eq1_has_a_margin() -> None:
    """A side of 224 less 1e-4, as rounding leaves it, is on the level of 224: the releases add 1e-6 to the ratio."""
    assert _levels(_extractor(assignment='fpn'), (223.9999, 223.9999), (223.999, 223.999), area=1) == [4, 3]


def test_legacy_boxes() -> None:
    """45² is less than half of 64², 46² is more."""
    assert _levels(_extractor(), (45, 45), area=64 * 64) == [4]
    assert _levels(_extractor(legacy_boxes=True), (45, 45), area=64 * 64) == [5]


@pytest.mark.parametrize('assignment', ['scale_adaptive', 'fpn'])
def test_roi_without_area(assignment: str) -> None:
    assert _levels(_extractor(assignment=assignment), (0, 0), (0, 50), (50, 0), area=64 * 64) == [3, 3, 3]


def test_roi_larger_than_the_image() -> None:
    assert _levels(_extractor(), (200, 200), area=64 * 64) == [5]


def test_each_image_has_its_own_area() -> None:
    rois = _rois((32, 32), (32, 32))
    rois[1, 0] = 1
    assert (_extractor().map_roi_levels(rois, torch.tensor([32.0 * 40, 64.0 * 64])) + 3).tolist() == [5, 3]


def _features(batch_size: int = 2) -> list[Tensor]:
    """Return P3 to P5 of images of 64×64 with constant values 3, 4, 5 in the first and 13, 14, 15 in the second."""
    offsets = 10.0 * torch.arange(batch_size)[:, None, None, None]
    return [
        torch.full((batch_size, 1, 64 // stride, 64 // stride), 3.0 + i) + offsets for i, stride in enumerate(P3_P5)
    ]


def test_pools_each_roi_from_its_level_and_image() -> None:
    rois = torch.tensor([[1.0, 0, 0, 64, 64], [0, 8, 8, 24, 24], [1, 0, 0, 64, 32], [0, 0, 0, 64, 60]])
    pooled = _extractor()(_features(), rois, torch.full((2,), 64.0 * 64))
    assert pooled.shape == (4, 1, 2, 2)
    assert pooled.mean((1, 2, 3)).tolist() == pytest.approx([15, 3, 14, 5])


def test_equals_roi_align() -> None:
    feature = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0, 9.0, 3.0, 40.5, 30.0]])
    pooled = _extractor((8,))([feature], rois, torch.tensor([64.0 * 64]))
    assert torch.equal(pooled, RoIAlign(2, 1 / 8, sampling_ratio=2, aligned=True)(feature, rois))


def test_any_memory_format() -> None:
    """MMCV's RoIAlign reads channels-last memory as if it were contiguous."""
    feature = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0, 9.0, 3.0, 40.5, 30.0], [1, 9.0, 3.0, 40.5, 30.0]])
    extractor = _extractor((8,))
    extractor.out_channels = 4
    areas = torch.full((2,), 64.0 * 64)
    channels_last = feature.to(memory_format=torch.channels_last)
    assert torch.equal(extractor([channels_last], rois, areas), extractor([feature], rois, areas))


def test_no_rois() -> None:
    assert _extractor()(_features(), torch.zeros(0, 5), torch.full((2,), 64.0 * 64)).shape == (0, 1, 2, 2)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype: torch.dtype) -> None:
    """RoIs aren't rounded and features are returned as float32."""
    rois = torch.tensor([[0, 8, 8, 24, 24.0]])
    pooled = _extractor()([feature.to(dtype) for feature in _features()], rois, torch.full((2,), 64.0 * 64))
    assert pooled.dtype == torch.float32
    assert pooled.mean().item() == pytest.approx(3)


def test_gradients_reach_the_level() -> None:
    features = [feature.requires_grad_() for feature in _features()]
    _extractor()(features, torch.tensor([[0, 0, 0, 64.0, 64.0]]), torch.full((2,), 64.0 * 64)).sum().backward()
    assert features[0].grad is None
    assert features[2].grad[0].sum().item() == pytest.approx(4)
    assert features[2].grad[1].sum().item() == 0


@pytest.mark.parametrize('strides', [(8, 32), (6, 12), (16, 8)])
def test_strides_must_be_consecutive_powers_of_two(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match='must be consecutive powers of two'):
        _extractor(strides)
