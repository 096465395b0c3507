"""The averaging pyramid by hand."""

import pytest
import torch
import torch.nn.functional as F

from centermask import AveragingFPN


@pytest.mark.parametrize('size', [32, 36])  # of C2: halves evenly, and doesn't
def test_levels(size: int) -> None:
    torch.manual_seed(0)
    pyramid = AveragingFPN([2, 3, 4, 5], 6, 6)
    pyramid.init_weights()
    lengths = [size]
    while len(lengths) < 4:
        lengths.append(-(-lengths[-1] // 2))
    c = [torch.randn(2, channels, length, length) for channels, length in zip((2, 3, 4, 5), lengths, strict=True)]
    levels = pyramid(c)
    inner = [conv(x) for conv, x in zip(pyramid.lateral_convs, c, strict=True)]
    for i in (2, 1, 0):
        above = inner[i + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : lengths[i], : lengths[i]]
        inner[i] = 0.5 * inner[i] + 0.5 * above
    for level, conv, x in zip(levels[:4], pyramid.fpn_convs[:4], inner, strict=True):
        torch.testing.assert_close(level, conv(x))
    torch.testing.assert_close(levels[4], pyramid.fpn_convs[4](c[3]))  # P6 from C5
    torch.testing.assert_close(levels[5], pyramid.fpn_convs[5](F.relu(levels[4])))
