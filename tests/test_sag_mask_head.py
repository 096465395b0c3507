"""Spatial attention against plain arithmetic, and the mask head around it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from centermask import SAGMaskHead
from centermask.sag_mask_head import SpatialAttention


def _head(**kwargs) -> SAGMaskHead:
    torch.manual_seed(0)
    return SAGMaskHead(num_classes=3, num_convs=2, in_channels=8, conv_out_channels=8, **kwargs)


def test_spatial_attention() -> None:
    """Eq. 3 and 4 are computed by loops over positions; the mean comes before the maximum."""
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


def _logits_of_all_channels(head: SAGMaskHead, x: torch.Tensor) -> torch.Tensor:
    """Apply convs with ReLU, attention, deconv with ReLU, and the last conv."""
    for conv in head.convs:
        x = nn.functional.conv2d(x, conv.conv.weight, conv.conv.bias, padding=1).relu()
    x = head.spatial_attention(x)
    x = nn.functional.conv_transpose2d(x, head.upsample.weight, head.upsample.bias, stride=2).relu()
    return nn.functional.conv2d(x, head.conv_logits.weight, head.conv_logits.bias)


def test_without_attention() -> None:
    head = _head(spatial_attention=False)
    assert not [name for name, _ in head.named_parameters() if 'attention' in name]
    assert head(torch.zeros(1, 8, 14, 14), torch.zeros(1, dtype=torch.long)).shape == (1, 28, 28)


def test_own_class() -> None:
    """The result is the class's channel of the layers' output, with an offset for background; so are gradients."""
    x, labels = torch.randn(3, 8, 14, 14), torch.tensor([2, 0, 2])
    for background in (False, True):
        head = _head(legacy_background=background)
        assert head.conv_logits.out_channels == 3 + background
        torch.nn.init.normal_(head.conv_logits.bias)
        gradients = []
        for logits in (_logits_of_all_channels(head, x)[torch.arange(3), labels + background], head(x, labels)):
            head.zero_grad()
            logits.square().sum().backward()
            gradients.append([logits, *(p.grad for p in head.parameters())])
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_own_class_in_any_memory_format(memory_format: torch.memory_format) -> None:
    head, x, labels = _head(), torch.randn(3, 8, 14, 14), torch.tensor([2, 0, 2])
    expected = head(x, labels)
    head = head.to(memory_format=memory_format)
    torch.testing.assert_close(head(x.contiguous(memory_format=memory_format), labels), expected)


def test_own_class_of_no_rois() -> None:
    """Without RoIs every parameter has a gradient of 0."""
    head = _head()
    logits = head(torch.zeros(0, 8, 14, 14), torch.zeros(0, dtype=torch.long))
    assert logits.shape == (0, 28, 28)
    logits.sum().backward()
    assert all(not p.grad.any() for p in head.parameters())


def test_memory_for_1200_classes() -> None:
    """No tensor of 1200 channels is computed, which would take 376 MB for 100 RoIs."""
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            sizes.append(result.numel() if isinstance(result, torch.Tensor) else 0)
            return result

    with torch.device('meta'):
        head = SAGMaskHead(num_classes=1200, num_convs=1, in_channels=64, conv_out_channels=64)
        x, labels = torch.empty(100, 64, 14, 14), torch.empty(100, dtype=torch.long)
        with Sizes():
            head(x, labels).sum().backward()
    assert max(sizes) == 100 * 64 * 28 * 28
