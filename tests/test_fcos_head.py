"""The box head in both recipes: targets of locations, losses and their normalisers, and the kept detections."""

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from centermask import CenterMaskFCOSHead, fcos_head
from centermask.boxes import nms_of_image

STRIDES = [8, 16, 32, 64, 128]
STAR: dict[str, Any] = dict(norm_on_bbox=True)
PAPER: dict[str, Any] = dict(norm_on_bbox=False, sqrt_score=False, legacy_boxes=True, sync_avg_factor=False)
TEST_CFG = dict(score_thr=0.05, nms_pre=1000, nms=dict(type='nms', iou_threshold=0.6), max_per_img=50)


def _head(strides: list[int] | None = None, test_cfg: dict | None = None, **kwargs) -> CenterMaskFCOSHead:
    torch.manual_seed(0)
    strides = strides or STRIDES
    ranges = (
        ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)) if len(strides) == 5 else ((-1, 1e8),) * len(strides)
    )
    return CenterMaskFCOSHead(
        num_classes=3,
        in_channels=32,
        feat_channels=32,
        stacked_convs=1,
        strides=strides,
        regress_ranges=ranges,
        conv_bias=True,
        norm_cfg=dict(type='GN', num_groups=8, requires_grad=True),
        centerness_on_reg=True,
        center_sampling=True,
        loss_bbox=dict(type='SmoothedGIoULoss'),
        test_cfg=ConfigDict({**TEST_CFG, **(test_cfg or {})}),
        **kwargs,
    )


def _objects(*objects: tuple[int, list[float]]) -> InstanceData:
    """Return ground truth of these classes and boxes."""
    return InstanceData(
        bboxes=torch.tensor([box for _, box in objects], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([label for label, _ in objects], dtype=torch.long),
    )


def _learned(head: CenterMaskFCOSHead, truth: InstanceData, size: int = 256) -> dict[tuple[int, float, float], tuple]:
    """Return class and target distances of each positive location (stride, x, y)."""
    points = head.prior_generator.grid_priors(
        [(size // stride, size // stride) for stride in head.strides], device='cpu'
    )
    labels, targets = head.get_targets(points, [truth])
    learned = {}
    for stride, level, level_labels, level_targets in zip(head.strides, points, labels, targets, strict=True):
        for i in (level_labels < 3).nonzero().squeeze(1).tolist():
            x, y = level[i].tolist()
            learned[stride, x, y] = (level_labels[i].item(), level_targets[i].tolist())
    return learned


def test_locations_lie_in_the_middle_of_their_cells() -> None:
    assert _head().prior_generator.grid_priors([(1, 2)] * 5, device='cpu')[1].tolist() == [[8, 8], [24, 8]]


def test_range_of_sizes_includes_its_ends() -> None:
    """A largest distance of exactly 64 belongs to P3 and to P4."""
    p3 = _learned(_head(**STAR), _objects((1, [60, 60, 188, 188])))  # around a location of P3
    assert p3[8, 124, 124] == (1, [8, 8, 8, 8])
    assert (8, 116, 124) not in p3  # 72 to the right
    p4 = _learned(_head(**STAR), _objects((1, [56, 56, 184, 184])))  # around a location of P4
    assert p4[16, 120, 120] == (1, [4, 4, 4, 4])
    assert (8, 116, 116) not in p4 and (8, 124, 124) not in p4  # 68 to one side


@pytest.mark.parametrize(
    'box, stride',
    [([28, 28, 100, 100], 8), ([50, 50, 190, 190], 16), ([-22, -22, 278, 278], 32), ([-200, -200, 456, 456], 64)],
)
def test_level_by_size(box: list[float], stride: int) -> None:
    assert {key[0] for key in _learned(_head(**STAR), _objects((0, box)))} == {stride}


def test_centre_sampling() -> None:
    """Locations less than 1.5 strides from the centre on each axis are positive."""
    learned = _learned(_head(**STAR), _objects((2, [28, 28, 100, 100])))  # centre 64, locations at 52, 60, 68, 76
    assert set(learned) == {(8, x, y) for x in (60, 68) for y in (60, 68)}
    assert learned[8, 60, 68] == (2, [4, 5, 5, 4])


def test_without_centre_sampling() -> None:
    """Each location inside the object is positive."""
    head = _head(**STAR)
    head.center_sampling = False
    inside = (36, 44, 52, 60, 68, 76, 84, 92)
    assert set(_learned(head, _objects((2, [32, 32, 96, 96])))) == {(8, x, y) for x in inside for y in inside}


def test_centre_region_is_clipped_to_a_small_object() -> None:
    assert set(_learned(_head(**STAR), _objects((2, [57, 57, 63, 63])))) == {(8, 60, 60)}
    assert not _learned(_head(**STAR), _objects((2, [60, 57, 66, 63])))  # 60 lies on its edge


def test_smallest_object_wins() -> None:
    large, small = (0, [20.0, 20, 100, 100]), (1, [50.0, 50, 70, 70])
    for objects in ((large, small), (small, large)):
        learned = _learned(_head(**STAR), _objects(*objects))
        assert learned[8, 60, 60][0] == 1
        assert learned[8, 52, 52][0] == 1
        assert learned[8, 68, 52][0] == 1


def test_smallest_object_by_whole_pixels() -> None:
    """4 × 50 is smaller than 15 × 14; in whole pixels 5 × 51 is larger than 16 × 15."""
    objects = _objects((0, [58, 35, 62, 85]), (1, [53, 53, 68, 67]))
    assert _learned(_head(**STAR), objects)[8, 60, 60][0] == 0
    assert _learned(_head(**PAPER), objects)[8, 60, 60][0] == 1


def test_unit_of_the_targets() -> None:
    objects = _objects((0, [20, 28, 220, 212]))
    assert _learned(_head(**STAR), objects)[16, 120, 120][1] == [100 / 16, 92 / 16, 100 / 16, 92 / 16]
    assert _learned(_head(**PAPER), objects)[16, 120, 120][1] == [100, 92, 100, 92]


def test_no_objects() -> None:
    assert _learned(_head(**STAR), _objects()) == {}


@pytest.mark.parametrize('option', ['nms_pre', 'max_per_img'])
def test_limits_under_one_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=rf'test_cfg\.{option} is a number from 1, not -1'):
        _head([8], {option: -1}, **STAR)


@pytest.mark.parametrize('recipe', [STAR, PAPER], ids=['star', 'paper'])
def test_same_in_training_and_testing(recipe: dict[str, Any]) -> None:
    head = _head(**recipe)
    features = [torch.randn(1, 32, 64 // stride, 64 // stride) for stride in (8, 16, 32, 64, 64)]
    results = []
    for training in (True, False):
        head.train(training)
        maps = head(features)
        found = head.predict_by_feat(*maps, batch_img_metas=[dict(img_shape=(64, 64))])[0]
        results.append([*(level for kind in maps for level in kind), found.bboxes, found.scores, found.labels])
    assert len(results[0][-1])
    assert all(torch.equal(in_training, in_testing) for in_training, in_testing in zip(*results, strict=True))


@pytest.mark.parametrize('recipe', [STAR, PAPER], ids=['star', 'paper'])
def test_box_output(recipe: dict[str, Any]) -> None:
    """Distances are relu or exp of the scaled output; centerness comes from the box tower."""
    head = _head([8], **recipe).eval()
    head.scales[0].scale.data.fill_(1.5)
    x = torch.randn(1, 32, 4, 4)
    tower = head.reg_convs[0](x)
    _, (distances,), (centerness,) = head([x])
    raw = 1.5 * head.conv_reg(tower)
    torch.testing.assert_close(distances, raw.relu() if recipe is STAR else raw.exp())
    torch.testing.assert_close(centerness, head.conv_centerness(tower))


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


Found = tuple[int, int, int, float, float, float | tuple[float, ...]]
"""Row, column, class, class score, centerness, and the distance to all sides or each, in the head's unit."""


def _detect(head: CenterMaskFCOSHead, *found: Found, shape: tuple[int, int] = (64, 64), **kwargs) -> InstanceData:
    """Return the detections of a head with one level of stride 8 in maps that are empty except for ``found``."""
    scores, boxes, centerness = torch.full((1, 3, 8, 8), -30.0), torch.ones(1, 4, 8, 8), torch.full((1, 1, 8, 8), -30.0)
    for row, column, label, score, center, distance in found:
        scores[0, label, row, column] = _logit(score)
        centerness[0, 0, row, column] = _logit(center)
        boxes[0, :, row, column] = torch.tensor(distance)
    return head.predict_by_feat(
        [scores], [boxes], [centerness], [dict(img_shape=shape, **kwargs.pop('meta', {}))], **kwargs
    )[0]


def test_score() -> None:
    found = (2, 3, 1, 0.8, 0.2, 1.0)
    assert _detect(_head([8], **STAR), found).scores.item() == pytest.approx(0.4)
    assert _detect(_head([8], **PAPER), found).scores.item() == pytest.approx(0.16)


def test_box_and_label() -> None:
    """A distance of 1 around (28, 20) is a stride (star) or a pixel (paper)."""
    for recipe, reach in ((STAR, 8), (PAPER, 1)):
        detected = _detect(_head([8], **recipe), (2, 3, 1, 0.8, 0.2, 1.0))
        assert detected.bboxes.tolist() == [[28 - reach, 20 - reach, 28 + reach, 20 + reach]]
        assert detected.labels.tolist() == [1]


def test_threshold_is_on_the_class_score() -> None:
    detected = _detect(_head([8], **STAR), (1, 1, 0, 0.5, 0.001, 0.4), (5, 5, 0, 0.049, 0.999, 0.4))
    assert detected.scores.tolist() == pytest.approx([np.sqrt(0.0005)])


def test_best_of_a_level_by_class_times_centerness() -> None:
    head = _head([8], dict(nms_pre=1), **STAR)
    detected = _detect(head, (1, 1, 0, 0.9, 0.1, 0.4), (5, 5, 1, 0.5, 0.9, 0.4))
    assert detected.labels.tolist() == [1]


@pytest.mark.parametrize('option', ['nms_pre', 'max_per_img'])
def test_ties_at_the_top_are_cut(option: str) -> None:
    """Exactly that many are kept; both releases keep all that equal the last."""
    head = _head([8], {option: 2}, **STAR)
    best, equal, again, lower = (
        (row, row, row % 3, score, 0.5, 0.4) for row, score in ((0, 0.9), (2, 0.5), (4, 0.5), (6, 0.4))
    )
    assert _detect(head, best, lower, equal).labels.tolist() == [0, 2]
    found = _detect(head, best, equal, again)
    assert len(found) == 2 and found.labels[0] == 0 and found.labels[1] in (1, 2)


@pytest.mark.parametrize('recipe', [STAR, PAPER], ids=['star', 'paper'])
def test_number_of_candidates_is_fixed(recipe: dict[str, Any]) -> None:
    """Each level yields ``nms_pre`` candidates or all its locations; those below the threshold score 0."""
    head = _head([8, 64], dict(nms_pre=5), **recipe)
    scores = [torch.full((2, 3, 8, 8), -30.0), torch.full((2, 3, 1, 1), -30.0)]
    scores[0][0, 1, 2, 3] = scores[1][1, 2, 0, 0] = 0
    maps = scores, [torch.ones(2, 4, *s.shape[2:]) for s in scores], [torch.full_like(s[:, :1], 30) for s in scores]
    boxes, found, labels = head.candidates(*maps, torch.tensor([[64, 64], [60, 60]]))
    assert boxes.shape == (2, 5 + 3, 4) and found.shape == labels.shape == (2, 5 + 3)
    expected = torch.zeros(2, 8)
    expected[0, 0] = expected[1, 5] = 0.5**0.5 if recipe is STAR else 0.5
    torch.testing.assert_close(found, expected)
    assert (labels[0, 0], labels[1, 5]) == (1, 2)
    unit = (8, 64) if recipe is STAR else (1, 1)
    assert boxes[0, 0].tolist() == [28 - unit[0], 20 - unit[0], 28 + unit[0], 20 + unit[0]]
    assert boxes[1, 5].tolist() == [32 - unit[1], 32 - unit[1], 32 + unit[1], 32 + unit[1]]
    metas = [dict(img_shape=(64, 64)), dict(img_shape=(60, 60))]
    assert [len(image) for image in head.predict_by_feat(*maps, metas)] == [1, 1]


def test_result_does_not_depend_on_the_memory_format() -> None:
    torch.manual_seed(0)
    head = _head(**STAR)
    maps = [[torch.randn(2, channels, 64 // stride + 1, 128 // stride) for stride in STRIDES] for channels in (3, 4, 1)]
    maps[1] = [level.relu() for level in maps[1]]
    metas = [dict(img_shape=(64, 128))] * 2
    last = [[level.contiguous(memory_format=torch.channels_last) for level in kind] for kind in maps]
    for found, other in zip(head.predict_by_feat(*maps, metas), head.predict_by_feat(*last, metas), strict=True):
        assert len(found)
        assert all(torch.equal(found[key], other[key]) for key in ('bboxes', 'scores', 'labels'))


@pytest.mark.parametrize(
    'recipe, expected',
    [(STAR, [[-28, -28, 36, 36], [28, 28, 92, 92]]), (PAPER, [[0, 0, 36, 36], [28, 28, 57, 61]])],
    ids=['star', 'paper'],
)
def test_clipping(recipe: dict[str, Any], expected: list[list[float]]) -> None:
    """An image of 62 × 58 pixels: the paper recipe clips to [0, 57] × [0, 61]."""
    reach = 4.0 if recipe is STAR else 32.0
    detected = _detect(_head([8], **recipe), (0, 0, 0, 0.9, 0.9, reach), (7, 7, 1, 0.8, 0.8, reach), shape=(62, 58))
    assert detected.bboxes.tolist() == expected


def test_nms_is_class_wise() -> None:
    """Boxes of 64 pixels, 8 apart: IoU 0.78."""
    first, second = (3, 3, 0, 0.9, 0.9, 4.0), (3, 4, 0, 0.8, 0.8, 4.0)
    assert len(_detect(_head([8], **STAR), first, second)) == 1
    assert len(_detect(_head([8], **STAR), first, (3, 4, 1, 0.8, 0.8, 4.0))) == 2


def test_nms_threshold_and_offset() -> None:
    """Boxes of 31.4 pixels, 8 apart: IoU 0.594, and 0.604 counted in whole pixels."""
    first, second = (3, 3, 0, 0.9, 0.9, 15.7), (3, 4, 0, 0.8, 0.8, 15.7)
    inclusive = dict(nms=dict(type='nms', iou_threshold=0.6, offset=1))
    assert len(_detect(_head([8], **PAPER), first, second)) == 2
    assert len(_detect(_head([8], inclusive, **PAPER), first, second)) == 1


def test_small_boxes_of_many_classes() -> None:
    """Two boxes of 9 pixels, 2.2 (IoU 0.607) or 2.4 (0.579) apart, are treated alike in class 0 and 1199."""
    for distance, kept in ((2.2, [1]), (2.4, [1, 2])):
        boxes = torch.tensor(
            [[1300, 1300, 1333, 1333], [700, 700, 709, 709], [700 + distance, 700, 709 + distance, 709]]
        )
        scores = torch.tensor([0.9, 0.8, 0.7])
        for label in (0, 1199):
            labels = torch.tensor([5, label, label])
            found, _ = nms_of_image(boxes, scores, labels, 1200, dict(type='nms', iou_threshold=0.6))
            assert found.tolist() == [0, *kept]


def test_boxes_far_outside_do_not_suppress_other_classes() -> None:
    """Unclipped boxes may reach far to the left and top; NMS must still keep classes apart."""
    to_the_left = (100.0, 100.0, 0.1, 0.1)
    detected = _detect(_head([8], **STAR), *[(7, 7, label, 0.9 - 0.1 * label, 0.9, to_the_left) for label in range(3)])
    assert detected.labels.tolist() == [0, 1, 2]


def test_sorted_by_score() -> None:
    scores = _detect(
        _head([8], **STAR), (1, 1, 0, 0.3, 0.5, 0.4), (3, 3, 1, 0.9, 0.9, 0.4), (5, 5, 2, 0.6, 0.6, 0.4)
    ).scores
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)


def test_nothing_found() -> None:
    detected = _detect(_head([8], **STAR))
    assert detected.bboxes.shape == (0, 4)
    assert len(detected.scores) == len(detected.labels) == 0


def test_rescale() -> None:
    found, meta = (2, 3, 1, 0.8, 0.2, 1.0), dict(scale_factor=(2.0, 4.0))
    assert _detect(_head([8], **STAR), found, meta=meta, rescale=True).bboxes.tolist() == [[10, 3, 18, 7]]


def test_cfg_argument_replaces_test_cfg() -> None:
    found = [(1, 1, 0, 0.3, 0.5, 0.4), (3, 3, 1, 0.9, 0.9, 0.4)]
    assert len(_detect(_head([8], **STAR), *found, cfg=dict(TEST_CFG, max_per_img=1))) == 1


def test_detections_have_no_gradients() -> None:
    head = _head(**STAR).train()
    maps = head([torch.randn(1, 32, 64 // stride, 64 // stride) for stride in (8, 16, 32, 64, 64)])
    assert not head.predict_by_feat(*maps, batch_img_metas=[dict(img_shape=(64, 64))])[0].bboxes.requires_grad


# Losses of two images on one level of 8 × 8 locations of stride 8; six locations are positive in the first image.


def _maps() -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    scores, boxes, centerness = (torch.randn(2, channels, 8, 8, generator=generator) for channels in (3, 4, 1))
    return [scores], [boxes.exp()], [centerness]


TRUTH = [_objects((1, [4, 22, 58, 42])), _objects()]
LOCATIONS = [(x, y) for x in (20, 28, 36) for y in (28, 36)]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _expected(unit: float, images: int | None) -> dict[str, float]:
    """Compute the losses in NumPy; the class loss is divided by positives + ``images``.

    Args:
        unit: the unit of distances in pixels.
        images: number of images to add, or None.
    """
    (scores,), (boxes,), (centerness,) = ([level.double().numpy() for level in maps] for maps in _maps())
    is_class = np.zeros_like(scores)
    targets, pred, logits = [], [], []
    for x, y in LOCATIONS:
        row, column = (y - 4) // 8, (x - 4) // 8
        is_class[0, 1, row, column] = 1
        targets.append([(x - 4) / unit, (y - 22) / unit, (58 - x) / unit, (42 - y) / unit])
        pred.append(boxes[0, :, row, column])
        logits.append(centerness[0, 0, row, column])
    p = _sigmoid(scores)
    focal = np.where(is_class, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p)).sum()

    t, d, logit = np.array(targets), np.array(pred), np.array(logits)
    weight = np.sqrt(t[:, [0, 2]].min(1) / t[:, [0, 2]].max(1) * t[:, [1, 3]].min(1) / t[:, [1, 3]].max(1))
    low, high = np.minimum(t, d), np.maximum(t, d)
    overlap, t_area, d_area, hull = ((b[:, 0] + b[:, 2]) * (b[:, 1] + b[:, 3]) for b in (low, t, d, high))
    union = t_area + d_area - overlap
    giou = (overlap + 1) / (union + 1) - (hull - union) / hull
    bce = -(weight * np.log(_sigmoid(logit)) + (1 - weight) * np.log(1 - _sigmoid(logit)))
    return dict(
        loss_cls=focal / (len(LOCATIONS) + (images or 0)),
        loss_bbox=(weight * (1 - giou)).sum() / weight.sum(),
        loss_centerness=bce.mean(),
    )


def _losses(head: CenterMaskFCOSHead, truth: list[InstanceData] = TRUTH) -> dict[str, float]:
    return {k: v.item() for k, v in head.loss_by_feat(*_maps(), truth, [dict(img_shape=(64, 64))] * 2).items()}


def test_losses_of_star() -> None:
    assert _losses(_head([8], **STAR)) == pytest.approx(_expected(unit=8, images=None), rel=1e-5)


def test_losses_of_paper() -> None:
    assert _losses(_head([8], **PAPER)) == pytest.approx(_expected(unit=1, images=2), rel=1e-5)


def test_normalisers_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the mean over the processes is three times the own count, only star divides by it."""
    star, paper = _losses(_head([8], **STAR)), _losses(_head([8], **PAPER))
    monkeypatch.setattr(fcos_head, 'reduce_mean', lambda tensor: tensor * 3)
    assert _losses(_head([8], **STAR)) == pytest.approx({key: value / 3 for key, value in star.items()})
    assert _losses(_head([8], **PAPER)) == paper


def test_class_loss_without_positives() -> None:
    """The class loss is divided by 1 (star) or by the number of images (paper)."""
    nothing = [_objects(), _objects()]
    star, paper = _losses(_head([8], **STAR), nothing), _losses(_head([8], **PAPER), nothing)
    assert star['loss_cls'] == pytest.approx(2 * paper['loss_cls'])
    assert star['loss_cls'] > 1
    assert (star['loss_bbox'], star['loss_centerness']) == (paper['loss_bbox'], paper['loss_centerness']) == (0, 0)


@pytest.mark.parametrize('recipe', [STAR, PAPER], ids=['star', 'paper'])
def test_every_parameter_has_a_gradient_without_positives(recipe: dict[str, Any]) -> None:
    head = _head(**recipe)
    maps = head([torch.randn(2, 32, 64 // stride, 64 // stride) for stride in (8, 16, 32, 64, 64)])
    losses = head.loss_by_feat(*maps, [_objects(), _objects()], [dict(img_shape=(64, 64))] * 2)
    sum(losses.values()).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_only_one_process_has_positives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without positives still divides its class loss by the mean."""
    nothing = [_objects(), _objects()]
    alone = _losses(_head([8], **STAR), nothing)
    monkeypatch.setattr(fcos_head, 'reduce_mean', lambda tensor: tensor + 10)
    assert _losses(_head([8], **STAR), nothing)['loss_cls'] == pytest.approx(alone['loss_cls'] / 10)
