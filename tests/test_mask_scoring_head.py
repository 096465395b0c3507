"""The head that predicts a mask's IoU, its targets and its loss."""

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.mask_heads import MaskIoUHead

from centermask import MaskScoringHead


def _head(**kwargs) -> MaskScoringHead:
    torch.manual_seed(0)
    return MaskScoringHead(num_classes=3, num_convs=2, in_channels=8, conv_out_channels=8, fc_out_channels=16, **kwargs)


def _square(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([left, top, right, top, right, bottom, left, bottom], np.float64)


def test_no_rois() -> None:
    nothing = torch.zeros(0, 8, 14, 14), torch.zeros(0, 28, 28), torch.zeros(0, dtype=torch.long)
    assert _head()(*nothing).shape == (0,)


def test_input_is_features_and_pooled_mask() -> None:
    head, seen = _head(), []
    head.convs[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].numpy()))
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 8, 14, 14), np.float32)
    logits = rng.standard_normal((2, 28, 28), np.float32)
    with torch.no_grad():
        head(torch.from_numpy(features), torch.from_numpy(logits), torch.zeros(2, dtype=torch.long))
    pooled = (1 / (1 + np.exp(-logits))).reshape(2, 14, 2, 14, 2).max((2, 4))
    np.testing.assert_array_equal(seen[0][:, :8], features)
    np.testing.assert_allclose(seen[0][:, 8], pooled, rtol=1e-6)


def test_last_conv_halves_the_size() -> None:
    assert [conv.stride for conv in _head().convs] == [(1, 1), (2, 2)]
    assert _head().fcs[0].in_features == 8 * 7 * 7


def test_own_class() -> None:
    """The output is that of MMDetection's head for the class, with an offset for background; so are gradients."""
    x, masks, labels = torch.randn(3, 8, 14, 14), torch.randn(3, 28, 28), torch.tensor([2, 0, 2])
    for background in (False, True):
        head = _head(legacy_background=background)
        assert head.fc_mask_iou.out_features == 3 + background
        torch.nn.init.normal_(head.fc_mask_iou.bias)
        gradients = []
        for ious in (MaskIoUHead.forward(head, x, masks)[torch.arange(3), labels + background], head(x, masks, labels)):
            head.zero_grad()
            ious.square().sum().backward()
            gradients.append([ious, *(p.grad for p in head.parameters())])
        torch.testing.assert_close(*gradients)


def _masks(*areas: int) -> torch.Tensor:
    """Return masks whose first pixels, row by row, are 1."""
    masks = torch.zeros(len(areas), 28 * 28)
    for mask, area in zip(masks, areas, strict=True):
        mask[:area] = 1
    return masks.reshape(-1, 28, 28)


def test_loss() -> None:
    """The loss is 0.5 × squared error, averaged over RoIs with a target above 0."""
    predicted = torch.tensor([0.5, 0.9, 0.25, 0.7], requires_grad=True)
    logits = _masks(100, 50, 0, 100) * 2 - 1  # positive where the mask is
    targets = _masks(50, 50, 60, 100)
    area_ratios = torch.tensor([1.0, 0.5, 1.0, 0.0])
    # IoU: 50 of 100; 50 of 100, as half of the object is outside; nothing predicted; nothing inside the RoI.
    loss = _head().loss(predicted, logits, targets, area_ratios, False)
    assert loss.item() == pytest.approx(0.5 * (0.0**2 + 0.4**2) / 2)
    loss.backward()
    assert predicted.grad.tolist() == pytest.approx([0, 0.5 * 0.4, 0, 0])


def test_target_is_detached() -> None:
    logits = torch.ones(1, 28, 28, requires_grad=True)
    _head().loss(torch.ones(1, requires_grad=True), logits, _masks(50), torch.ones(1), False).backward()
    assert logits.grad is None


@pytest.mark.parametrize('rois', [0, 2])
def test_loss_without_targets(rois: int) -> None:
    predicted = torch.ones(rois, requires_grad=True)
    loss = _head().loss(predicted, torch.ones(rois, 28, 28), torch.zeros(rois, 28, 28), torch.ones(rois), False)
    loss.backward()
    assert loss.item() == 0
    assert predicted.grad.tolist() == [0] * rois


def test_area_ratios() -> None:
    """An RoI with the first of two equal squares holds half of the object, or all of its first polygon."""
    objects = [[_square(10, 10, 20, 20), _square(30, 10, 40, 20)]]
    roi = np.array([[10.0, 10, 20, 20]])
    assert _head().area_ratios(objects, roi, (64, 64)).tolist() == [0.5]
    assert _head(area_ratio='first_polygon').area_ratios(objects, roi, (64, 64)).tolist() == [1.0]
    assert _head().area_ratios([], np.zeros((0, 4)), (64, 64)).shape == (0,)
