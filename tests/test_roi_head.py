"""The mask branch: RoIs of training, targets and losses, and resulting masks."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_model import WIDTH, sample, small_model, square, truth, without_gradient
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from centermask.benchmark.counting import count
from centermask.mask_targets import rasterise_in_rois
from centermask.roi_head import CenterMaskRoIHead, Masks

HEIGHT, WIDTH_OF_IMAGE = 64, 96


def _roi_head(recipe: str = 'star', changes: dict[str, Any] | None = None) -> CenterMaskRoIHead:
    return small_model(recipe, changes).roi_head


def _pyramid(images: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(HEIGHT // stride, WIDTH_OF_IMAGE // stride) for stride in (8, 16, 32, 64, 128)]
    return [torch.randn(images, WIDTH, max(h, 1), max(w, 1), generator=generator) for h, w in sizes]


def _found(*boxes: tuple[float, ...], label: int = 1) -> InstanceData:
    """Return detections of one class, the n-th with a score of 1 / n."""
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=1 / torch.arange(1.0, len(boxes) + 1),
        labels=torch.full((len(boxes),), label),
    )


def _forward(head: CenterMaskRoIHead, found: list[InstanceData], samples: list[DetDataSample]) -> Masks:
    boxes, labels = [image.bboxes for image in found], [image.labels for image in found]
    return head(_pyramid(len(found)), boxes, labels, [image.metainfo for image in samples])


def _sample(*objects, **metainfo) -> DetDataSample:
    return sample(HEIGHT, WIDTH_OF_IMAGE, list(objects), **metainfo)


# Which RoIs


def test_rois_are_detections_and_ground_truth() -> None:
    """A detection is positive from an IoU of 0.5; its class is the object's."""
    objects = truth([square(2, 0, 0, 10, 10), square(0, 40, 40, 60, 60)], HEIGHT, WIDTH_OF_IMAGE)
    found = _found((0, 0, 10, 5), (0, 0, 10, 4.9), (40, 40, 60, 58), (80, 0, 90, 10))
    sampled = _roi_head().sample(found, objects)
    rois = {tuple(box): label for box, label in zip(sampled.boxes.tolist(), sampled.labels.tolist(), strict=True)}
    assert rois == {(0, 0, 10, 10): 2, (40, 40, 60, 60): 0, (0, 0, 10, 5): 2, (40, 40, 60, 58): 0}


def test_iou_of_the_paper_recipe_counts_pixels() -> None:
    """The IoU is 50 of 100 pixels (paper) or 36 of 81 (star)."""
    objects, found = truth([square(1, 0, 0, 9, 9)], HEIGHT, WIDTH_OF_IMAGE), _found((0, 0, 9, 4))
    assert len(_roi_head('paper').sample(found, objects).boxes) == 2
    assert len(_roi_head('star').sample(found, objects).boxes) == 1


def test_at_most_128_positives() -> None:
    objects = truth([square(1, 10, 10, 30, 30)], HEIGHT, WIDTH_OF_IMAGE)
    found = _found(*[(10, 10, 30, 30 + i / 100) for i in range(200)])
    assert len(_roi_head('star').sample(found, objects).boxes) == 128
    assert len(_roi_head('paper').sample(found, objects).boxes) == 201


@pytest.mark.parametrize('recipe', ['star', 'paper'])
@pytest.mark.parametrize('found', [(), ((0, 0, 10, 10),)], ids=['no detection', 'a detection'])
def test_no_objects(recipe: str, found: tuple) -> None:
    assert len(_roi_head(recipe).sample(_found(*found), truth([], HEIGHT, WIDTH_OF_IMAGE)).boxes) == 0


# Losses


@pytest.mark.parametrize('recipe, changes', [('star', {}), ('paper', {}), ('star', {'roi_head.mask_iou_head': None})])
def test_losses_without_objects(recipe: str, changes: dict[str, Any]) -> None:
    """All losses are 0 and every parameter has a gradient."""
    head = _roi_head(recipe, changes)
    losses = head.loss(_pyramid(2), [_found(), _found((0, 0, 10, 10))], [_sample(), _sample()])
    assert losses and not any(loss.item() for loss in losses.values())
    sum(losses.values()).backward()
    assert without_gradient(head) == []
    assert not any(p.grad.any() for p in head.parameters())


def test_one_image_without_objects() -> None:
    """It adds nothing to the other image's losses."""
    head, pyramid = _roi_head(), _pyramid(2)
    full, empty = _sample(square(1, 10, 10, 40, 40)), _sample()
    both = head.loss(pyramid, [_found(), _found((0, 0, 10, 10))], [full, empty])
    alone = head.loss([level[:1] for level in pyramid], [_found()], [full])
    assert both['loss_mask'].item() == pytest.approx(alone['loss_mask'].item())
    assert both['loss_mask_iou'].item() == pytest.approx(alone['loss_mask_iou'].item())


def test_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are the mean binary cross-entropy, and half the squared error of the IoU, over the RoIs of all images."""
    head = _roi_head()
    logits = torch.randn(3, 28, 28, generator=torch.Generator().manual_seed(0)) + 1
    ious, seen = torch.tensor([0.3, 0.6, 0.9]), []

    def forward(x: Any, boxes: list[Tensor], labels: list[Tensor], metas: Any) -> Masks:
        seen.extend(zip(bbox2roi(boxes).tolist(), torch.cat(labels).tolist(), strict=True))
        return Masks(logits, ious)

    monkeypatch.setattr(head, 'forward', forward)
    objects = [square(1, 10, 10, 40, 40), square(2, 20, 8, 60, 50)]
    losses = head.loss([], [_found((10, 10, 40, 30)), _found()], [_sample(objects[0]), _sample(objects[1])])
    # Ground truth comes before detections, image by image.
    expected = [([0, 10, 10, 40, 40], 1), ([0, 10, 10, 40, 30], 1), ([1, 20, 8, 60, 50], 2)]
    assert seen == expected

    polygons = [[np.array(polygon) for polygon in objects[i][1]] for i in (0, 0, 1)]
    targets = rasterise_in_rois(polygons, np.array([roi[1:] for roi, _ in expected], np.float64), 28)
    z = logits.double().numpy()
    assert losses['loss_mask'].item() == pytest.approx((np.logaddexp(0, z) - z * targets).mean(), rel=1e-5)
    # All three targets are full masks; the second RoI holds two thirds of its object.
    covered = (z > 0).mean((1, 2)) * [1, 2 / 3, 1]
    assert losses['loss_mask_iou'].item() == pytest.approx(0.5 * ((ious.numpy() - covered) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_bitmaps(recipe: str) -> None:
    """Bitmaps of the objects give the losses of their polygons."""
    head, pyramid, found = _roi_head(recipe), _pyramid(), [_found((20, 5, 70, 40), (8, 8, 40, 50))]
    losses = []
    for bitmaps in (False, True):
        sample = _sample((1, [[10.3, 9.8, 41, 22, 25, 50]]), (0, [[20, 5, 71.5, 5, 60, 41, 23, 38.2]]))
        if bitmaps:
            sample.gt_instances.masks = sample.gt_instances.masks.to_bitmap()
        losses.append([loss.item() for loss in head.loss(pyramid, found, [sample]).values()])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize('recipe', ['star', 'paper'])
@pytest.mark.parametrize('bitmaps', [False, True])
def test_object_without_outline(recipe: str, bitmaps: bool) -> None:
    """Its RoIs learn no mask, neither none nor that of the object around it, with which they overlap by 0.7."""
    head = _roi_head(recipe)
    outlined, found = square(1, 10, 10, 40, 40), _found((10, 10, 40, 39), (10, 10, 40, 31))
    alone = head.sample(found[:1], truth([outlined], HEIGHT, WIDTH_OF_IMAGE))
    both = truth([(2, [[10, 10, 40, 31, 10, 10]]), outlined], HEIGHT, WIDTH_OF_IMAGE)
    if bitmaps:
        both.masks = both.masks.to_bitmap()
    sampled = head.sample(found, both)
    assert sampled.boxes.tolist() == alone.boxes.tolist() == [[10, 10, 40, 40], [10, 10, 40, 39]]
    assert sampled.labels.tolist() == [1, 1] and sampled.objects.tolist() == [1, 1]


def test_scoring_loss_reaches_the_mask_head() -> None:
    """The scoring head's input mask isn't detached, so mask head and features get its gradient."""
    head = _roi_head()
    torch.nn.init.constant_(head.mask_head.conv_logits.bias, 1.0)  # masks that cover something
    pyramid = [level.requires_grad_() for level in _pyramid()]
    losses = head.loss(pyramid, [_found()], [_sample(square(1, 10, 10, 50, 50))])
    losses['loss_mask_iou'].backward()
    assert all(p.grad is not None and p.grad.any() for p in head.mask_head.parameters())
    assert any(level.grad is not None and level.grad.any() for level in pyramid)


def test_mask_loss_does_not_reach_the_scoring_head() -> None:
    head = _roi_head()
    head.loss(_pyramid(), [_found()], [_sample(square(1, 10, 10, 50, 50))])['loss_mask'].backward()
    assert all(p.grad is None for p in head.mask_iou_head.parameters())
    assert all(p.grad.any() for p in head.mask_head.parameters())


def test_host_waits_for_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets are prepared and compared while the device computes: nothing after the mask branch is waited for."""
    head, forward, waits = _roi_head(), CenterMaskRoIHead.forward, []
    with count() as cost:

        def counted(*args: Any) -> Masks:
            masks = forward(*args)
            waits.append(cost.waits)
            return masks

        monkeypatch.setattr(CenterMaskRoIHead, 'forward', counted)
        head.loss(_pyramid(), [_found((10, 10, 50, 45))], [_sample(square(1, 10, 10, 50, 50))])
    assert waits == [cost.waits], cost.by_operator


def test_without_mask_scoring() -> None:
    head = _roi_head(changes={'roi_head.mask_iou_head': None})
    assert list(head.loss(_pyramid(), [_found()], [_sample(square(1, 10, 10, 50, 50))])) == ['loss_mask']
    (result,) = head.predict(_pyramid(), [_found((10, 10, 50, 50))], [_sample()])
    assert 'mask_scores' not in result and result.masks.shape == (1, HEIGHT, WIDTH_OF_IMAGE)


# Features


def _pooled_from(head: CenterMaskRoIHead, found: list[InstanceData], samples: list[DetDataSample]) -> list[int]:
    """Return the level of each RoI (3 for P3) when masks are predicted."""
    levels: list[int] = []
    extractor = head.mask_roi_extractor
    extractor.register_forward_hook(
        lambda _, inputs, __: levels.extend((extractor.map_roi_levels(*inputs[1:]) + 3).tolist())
    )
    _forward(head, found, samples)
    return levels


def test_each_image_has_its_own_area() -> None:
    """An RoI of 30 × 40 is pooled from P5 in a small image and from P3 in a large one of the same batch."""
    box = (2.0, 2, 32, 42)
    small = sample(48, 40, batch_input_shape=(HEIGHT, WIDTH_OF_IMAGE), pad_shape=(HEIGHT, WIDTH_OF_IMAGE))
    large = sample(64, 96, batch_input_shape=(HEIGHT, WIDTH_OF_IMAGE), pad_shape=(HEIGHT, WIDTH_OF_IMAGE))
    assert _pooled_from(_roi_head(), [_found(box), _found(box)], [small, large]) == [5, 3]


def test_only_p3_to_p5_are_pooled() -> None:
    assert _roi_head().mask_roi_extractor.num_inputs == 3
    box = (0.0, 0, WIDTH_OF_IMAGE, HEIGHT)
    assert _pooled_from(_roi_head(), [_found(box)], [_sample()]) == [5]


# Results


def test_forward() -> None:
    found = [_found((0, 0, 20, 20)), _found((0, 0, 9, 9), (9, 9, 40, 60))]
    masks = _forward(_roi_head(), found, [_sample(), _sample()])
    assert masks.logits.shape == (3, 28, 28)
    assert masks.ious.shape == (3,)


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_mask_scores(recipe: str) -> None:
    """Mask score is detection score × predicted IoU; box scores don't change."""
    head, found = _roi_head(recipe), _found((0, 0, 20, 20), (30, 10, 80, 60), (5, 5, 40, 60))
    ious = _forward(head, [found], [_sample()]).ious
    (result,) = head.predict(_pyramid(), [found], [_sample()])
    torch.testing.assert_close(result.mask_scores, ious / torch.tensor([1, 2, 3]))
    torch.testing.assert_close(result.scores, 1 / torch.tensor([1.0, 2, 3]))
    assert len(result.mask_scores.unique()) == 3


def test_star_clips_and_drops_after_the_mask_branch() -> None:
    """Star pools from unclipped boxes, pastes into clipped ones, and drops boxes outside the image."""
    head, seen = _roi_head(), []
    head.mask_roi_extractor.register_forward_hook(lambda _, inputs, __: seen.extend(inputs[1][:, 1:].tolist()))
    found = _found((-10, -20, 30, 40), (100, 10, 120, 30), (50, 30, 120, 90), (10, 10, 10, 30))
    (result,) = head.predict(_pyramid(), [found], [_sample()])
    assert seen == [[-10, -20, 30, 40], [100, 10, 120, 30], [50, 30, 120, 90], [10, 10, 10, 30]]
    assert result.bboxes.tolist() == [[0, 0, 30, 40], [50, 30, 96, 64]]
    assert result.scores.tolist() == pytest.approx([1, 1 / 3])
    assert len(result.masks) == len(result.mask_scores) == len(result.labels) == 2


def test_star_pastes_into_the_clipped_box() -> None:
    head = _roi_head()
    found = _found((-10, -20, 30, 40), (100, 10, 120, 30), (50, 30, 120, 90))
    masks = torch.zeros(3, 28, 28)
    masks[0, :, :14] = 1  # left half
    masks[2, :, 14:] = 1  # right half
    result = head.postprocess(found, masks, torch.tensor([0.5, 0.6, 0.7]), (HEIGHT, WIDTH_OF_IMAGE))
    assert result.masks.sum((1, 2)).tolist() == [15 * 40, 23 * 34]
    assert result.masks[0, :40, :15].all() and result.masks[1, 30:, 73:].all()
    assert result.mask_scores.tolist() == pytest.approx([0.5, 0.7 / 3])


def test_paper_keeps_boxes() -> None:
    """Paper keeps all boxes, which are clipped already, those without area too."""
    result = _roi_head('paper').postprocess(
        _found((0, 0, 30, 40), (95, 10, 95, 30)), torch.ones(2, 28, 28), None, (64, 96)
    )
    assert result.bboxes.tolist() == [[0, 0, 30, 40], [95, 10, 95, 30]]
    assert result.masks[0].sum() > 30 * 40  # with half of the margin's cell around


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_rescale(recipe: str) -> None:
    """Boxes and masks have the size of the original image, here twice that of the resized one."""
    found, meta = (10.0, 8.0, 50.0, 40.0), dict(ori_shape=(2 * HEIGHT, 2 * WIDTH_OF_IMAGE), scale_factor=(0.5, 0.5))
    (result,) = _roi_head(recipe).predict(_pyramid(), [_found(found)], [_sample(**meta)], rescale=True)
    assert result.bboxes.tolist() == [[20, 16, 100, 80]]
    assert result.masks.shape == (1, 2 * HEIGHT, 2 * WIDTH_OF_IMAGE)
    (result,) = _roi_head(recipe).predict(_pyramid(), [_found(found)], [_sample(**meta)])
    assert result.bboxes.tolist() == [list(found)]
    assert result.masks.shape == (1, HEIGHT, WIDTH_OF_IMAGE)


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_image_without_detections(recipe: str) -> None:
    results = _roi_head(recipe).predict(_pyramid(2), [_found(), _found((10, 10, 50, 50))], [_sample(), _sample()])
    assert [len(result) for result in results] == [0, 1]
    assert results[0].masks.shape == (0, HEIGHT, WIDTH_OF_IMAGE)
    assert results[0].mask_scores.shape == (0,)
    (result,) = _roi_head(recipe).predict(_pyramid(), [_found()], [_sample()])
    assert result.masks.shape == (0, HEIGHT, WIDTH_OF_IMAGE)
