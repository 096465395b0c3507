"""Spatial attention against plain arithmetic, and the mask head around it."""

import numpy as np
import pytest
import torch
from torch import nn

from centermask import SAGMaskHead
from centermask.sag_mask_head import SpatialAttention


def _head(**kwargs) -> SAGMaskHead:
    torch.manual_seed(0)
    return SAGMaskHead(num_classes=3, num_convs=2, in_channels=8, conv_out_channels=8, **kwargs)


def test_spatial_attention() -> None:
    """Eq. 3 and 4 by loops over positions; the mean comes before the maximum."""
    attention = SpatialAttention()
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 5, 4, 6)), rng.standard_normal((2, 3, 3))
    attention.conv.weight.data = torch.from_numpy(weight[None]).float()
    expected = np.empty_like(x)
    for i in range(2):
        pooled = np.pad(np.stack([x[i].mean(0), x[i].max(0)]), ((0, 0), (1, 1), (1, 1)))
        for row in range(4):
            for column in range(6):
                logit = (pooled[:, row : row + 3, column : column + 3] * weight).sum()
                expected[i, :, row, column] = x[i, :, row, column] / (1 + np.exp(-logit))
    np.testing.assert_allclose(attention(torch.from_numpy(x).float()).detach(), expected, rtol=1e-5, atol=1e-6)


def test_spatial_attention_has_no_bias() -> None:
    assert [tuple(p.shape) for p in SpatialAttention().parameters()] == [(1, 2, 3, 3)]


@pytest.mark.parametrize('rois', [0, 1, 5])
def test_shape(rois: int) -> None:
    assert _head()(torch.zeros(rois, 8, 14, 14)).shape == (rois, 3, 28, 28)


def test_order_of_the_layers() -> None:
    """Convs with ReLU, attention, deconv with ReLU, logits."""
    head, x = _head(), torch.randn(2, 8, 14, 14)
    features = x
    for conv in head.convs:
        features = nn.functional.conv2d(features, conv.conv.weight, conv.conv.bias, padding=1).relu()
    features = head.spatial_attention(features)
    features = nn.functional.conv_transpose2d(features, head.upsample.weight, head.upsample.bias, stride=2).relu()
    expected = nn.functional.conv2d(features, head.conv_logits.weight, head.conv_logits.bias)
    torch.testing.assert_close(head(x), expected)


def test_without_attention() -> None:
    head = _head(spatial_attention=False)
    assert not [name for name, _ in head.named_parameters() if 'attention' in name]
    assert head(torch.zeros(1, 8, 14, 14)).shape == (1, 3, 28, 28)


def test_own_class() -> None:
    logits = torch.arange(4.0)[None, :, None, None].expand(3, 4, 28, 28)  # a channel's value is its number
    labels = torch.tensor([2, 0, 1])
    assert _head().of_class(logits, labels).mean((1, 2)).tolist() == [2, 0, 1]
    with_background = _head(background_channel=True)
    assert with_background.conv_logits.out_channels == 4
    assert with_background.of_class(logits, labels).mean((1, 2)).tolist() == [3, 1, 2]


def test_own_class_of_no_rois() -> None:
    assert _head().of_class(torch.zeros(0, 3, 28, 28), torch.zeros(0, dtype=torch.long)).shape == (0, 28, 28)
