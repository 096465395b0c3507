"""ShapeMask's backbone, pyramid and boxes: the release's numbers, and facts made by hand."""

import math
from pathlib import Path

import pytest
import torch
from helpers.read_configs import read_config
from helpers.small_model import without_gradient
from mmengine.structures import InstanceData
from parity import compare_with_reference, read_arrays
from parity.shapemask_boxes import build_box_head
from torch import Tensor, nn

from centermask import ShapeMaskAssigner, ShapeMaskBoxCoder, ShapeMaskBoxHead, ShapeMaskFPN, ShapeMaskResNet
from centermask.boxes import nms_of_image

CONFIG = 'shapemask_r101_fpn_2x_coco'
MODEL = read_config(CONFIG).model
BN = MODEL.neck.norm_cfg
HEAD = dict(MODEL.bbox_head, train_cfg=MODEL.train_cfg, test_cfg=MODEL.test_cfg)


def test_boxes_are_those_of_the_release(shared: Path) -> None:
    """Anchors, coding, assignment and detections."""
    expected = read_arrays(shared / 'parity/baselines/shapemask_boxes.npz', 'numbers')
    expected = {name: a for name, a in expected.items() if name.startswith(('anchors', 'coder', 'assign', 'det'))}
    rows = compare_with_reference(read_config(CONFIG), expected, shared / 'parity/inputs.npz')
    assert len(rows) == 60 and not [str(row) for row in rows if not row.ok]


# Backbone and pyramid


@pytest.mark.parametrize('side', [8, 7])
def test_same_padding(side: int) -> None:
    """An even side is padded after its end alone, an odd one at both ends; PyTorch pads both alike."""
    x = torch.arange(1.0, side + 1).repeat(side, 1)[None, None]  # columns of 1, 2, 3, …
    same, symmetric = (
        ShapeMaskResNet(depth=50, base_channels=2, same_padding=padding).maxpool(x)[0, 0, 0].tolist()
        for padding in (True, False)
    )
    assert symmetric == ([2, 4, 6, 8] if side == 8 else [2, 4, 6, 7])
    assert same == ([3, 5, 7, 8] if side == 8 else [2, 4, 6, 7])


def test_frozen_convs() -> None:
    """The convs of the stem and the first stage don't learn; their BN does, with batch statistics."""
    backbone = ShapeMaskResNet(depth=50, base_channels=2, frozen_stages=1, norm_eval=False, norm_cfg=BN)
    backbone.train()
    frozen = {name for name, value in backbone.named_parameters() if not value.requires_grad}
    convs = [name for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d)]
    assert frozen == {f'{name}.weight' for name in convs if name == 'conv1' or name.startswith('layer1.')}
    assert len(frozen) == 11
    assert all(part.training for part in backbone.modules())
    before = backbone.bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32))
    assert not torch.equal(backbone.bn1.running_mean, before)


def test_nothing_is_frozen_by_default() -> None:
    assert all(value.requires_grad for value in ShapeMaskResNet(depth=50, base_channels=2).parameters())


def test_pyramid() -> None:
    """P6 is a conv of P5, P7 a conv of ReLU(P6), both without BN; then each level has BN without activation."""
    torch.manual_seed(0)
    neck = ShapeMaskFPN(
        in_channels=[2, 3, 4],
        out_channels=5,
        num_outs=5,
        norm_cfg=BN,
        conv_cfg=dict(type='Conv2dAdaptivePadding'),
    ).eval()
    for norm in neck.norms:
        nn.init.normal_(norm.weight)
        norm.running_mean.normal_()
    stages = [torch.randn(1, c, s, s) for c, s in ((2, 16), (3, 8), (4, 4))]
    levels = neck(stages)
    assert [level.shape[-1] for level in levels] == [16, 8, 4, 2, 1]
    p5 = neck.fpn_convs[2](neck.lateral_convs[2](stages[2]))
    p6 = nn.functional.conv2d(nn.functional.pad(p5, (0, 1, 0, 1)), *neck.fpn_convs[3].conv.parameters(), stride=2)
    p7 = nn.functional.conv2d(
        nn.functional.pad(p6.relu(), (0, 1, 0, 1)), *neck.fpn_convs[4].conv.parameters(), stride=2
    )
    for level, norm, found in zip((p5, p6, p7), neck.norms[2:], levels[2:], strict=True):
        torch.testing.assert_close(found, norm(level))


# Coder and assignment


def test_coding() -> None:
    """Sides are w and h in encoding, w + 1 and h + 1 in decoding."""
    coder, anchor = ShapeMaskBoxCoder(), torch.tensor([[0.0, 0, 9, 19]])
    torch.testing.assert_close(
        coder.encode(anchor, torch.tensor([[9.0, 0, 27, 38]])),
        torch.tensor([[(18 - 4.5) / 9, (19 - 9.5) / 19, math.log(2), math.log(2)]]),
    )
    # A box of twice 10 × 20 pixels about (5 + 10, 10 + 10).
    deltas = torch.tensor([[1, 0.5, math.log(2), math.log(2)]])
    torch.testing.assert_close(coder.decode(anchor, deltas), torch.tensor([[5.0, 0, 24, 39]]))
    torch.testing.assert_close(coder.decode(anchor, deltas, (30, 20)), torch.tensor([[5.0, 0, 19, 29]]))


def test_coding_of_extremes() -> None:
    """An object without width has a finite target; a box grows by 62.5 at most and shrinks without a limit."""
    coder, anchor = ShapeMaskBoxCoder(), torch.tensor([[0.0, 0, 9, 9]])
    assert coder.encode(anchor, torch.tensor([[3.0, 3, 3, 6]])).isfinite().all()
    left, top, right, bottom = coder.decode(anchor, torch.tensor([[0, 0, 9.0, -9.0]]))[0].tolist()
    assert right - left + 1 == pytest.approx(625)
    assert bottom - top + 1 == pytest.approx(10 * math.exp(-9), abs=1e-4)


def _assign(anchors: list[list[float]], objects: list[list[float]]) -> list[int]:
    priors, boxes = (torch.tensor(part).float().reshape(-1, 4) for part in (anchors, objects))
    labels = torch.zeros(len(boxes), dtype=torch.long)
    return (
        ShapeMaskAssigner()
        .assign(InstanceData(priors=priors), InstanceData(bboxes=boxes, labels=labels))
        .gt_inds.tolist()
    )


def test_assignment() -> None:
    far = [100, 100, 110, 110]
    assert _assign([[0, 0, 10, 10], far], [[0, 0, 10, 5]]) == [1, 0]  # IoU is exactly 1/2
    assert _assign([[0, 0, 10, 10], [0, 0, 10, 12]], [[0, 0, 10, 4]]) == [1, 0]  # the best, below 1/2
    assert _assign([[0, 0, 10, 10], [1, 0, 11, 10]], [[0, 4, 11, 5]]) == [1, 0]  # the first of two equal ones
    assert _assign([far, [0, 0, 10, 10]], [[0, 0, 3, 3], [0, 0, 4, 4]]) == [0, 1]  # the first object keeps it
    assert _assign([[0, 0, 10, 10]], [[0, 0, 3, 3], [0, 0, 10, 9]]) == [1]  # even from a better one
    assert _assign([far, far], []) == [0, 0]


# Head


def _head(**changes) -> ShapeMaskBoxHead:
    torch.manual_seed(0)
    head = build_box_head({**HEAD, **changes}, channels=4)
    head.init_weights()
    return head


def _features(size: int = 128, images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(images, 8, size // s, size // s, generator=generator) for s in (8, 16, 32, 64, 128)]


def _objects(*boxes: list[float]) -> InstanceData:
    return InstanceData(bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.arange(len(boxes)))


def test_head_starts_as_the_release() -> None:
    """Classes start at 0.01, boxes at their anchors; towers with a deviation of 0.01."""
    head = _head()
    torch.testing.assert_close(head.retina_cls.bias.sigmoid(), torch.full((36,), 0.01))
    assert not head.retina_reg.bias.any()
    for conv, deviation in ((head.retina_cls, 1e-5), (head.retina_reg, 1e-5), (head.cls_convs[3].conv, 0.01)):
        assert conv.weight.std().item() == pytest.approx(deviation, rel=0.1)


def test_convs_are_shared_and_norms_are_not() -> None:
    """A level's BN sees that level alone."""
    head, x = _head().train(), _features()
    head([level * 10**i for i, level in enumerate(x)])
    variances = [norms[0].running_var.mean().item() for norms in head.cls_norms]
    assert variances == sorted(variances) and variances[4] > 2 * variances[0]
    assert len(head.cls_convs) == len(head.reg_convs) == 4


@pytest.mark.parametrize('counts', [(2, 1), (1, 0), (0, 0)])
def test_step(counts: tuple[int, int]) -> None:
    """With and without objects, losses are finite and reach every parameter."""
    head = _head().train()
    objects = [_objects(*[[10.0, 20, 60, 70], [30.0, 30, 120, 100]][:count]) for count in counts]
    losses = head.loss_by_feat(*head(_features()), objects, [dict(batch_input_shape=(128, 128))] * 2)
    assert losses['loss_cls'] > 0 and (losses['loss_bbox'] > 0) == any(counts)
    sum(losses.values()).backward()
    assert without_gradient(head) == []


def test_mixed_precision() -> None:
    """Maps leave the head in single precision, so that anchors, losses and boxes are in it."""
    head = _head().train()
    with torch.autocast('cpu', torch.bfloat16):
        maps = head(_features())
        losses = head.loss_by_feat(*maps, [_objects([10.0, 20, 60, 70])] * 2, [dict(batch_input_shape=(128, 128))] * 2)
        (found, _) = head.predict_by_feat(*maps, batch_img_metas=[dict(batch_input_shape=(128, 128))] * 2)
    assert {loss.dtype for loss in losses.values()} == {found.bboxes.dtype} == {torch.float32}
    assert all(loss.isfinite() for loss in losses.values())


def test_losses() -> None:
    """Both are divided by positive anchors + 1, boxes by four times as many; a target of 0 costs nothing."""
    head = _head()
    levels = [(256 // stride, 256 // stride) for stride in (8, 16, 32, 64, 128)]
    anchors = head.prior_generator.grid_priors(levels, device='cpu')
    place = (3 * 8 + 3) * 9  # the square anchor of the first scale in row 3 and column 3 of P5
    assert anchors[2][place].tolist() == [48, 48, 176, 176]
    box = torch.tensor([[48.0, 48, 188.8, 176]])
    logits = [torch.full((1, 36, *size), -20.0) for size in levels]
    logits[2][0, 3, 3, 3] = 0.0  # class 2 of this anchor, after the background's channel
    deltas = [torch.full_like(level, 0.1) for level in logits]
    objects = InstanceData(bboxes=box, labels=torch.tensor([2]))
    losses = head.loss_by_feat(logits, deltas, [objects], [dict(batch_input_shape=(256, 256))])
    labels, targets = head.targets_of_image(torch.cat(anchors), box, objects.labels)
    positive = (labels == 2).nonzero()[:, 0]
    divisor = len(positive) + 1
    place += 9 * (32**2 + 16**2)
    assert labels[place] == 2 and 1 < len(positive) < 40
    torch.testing.assert_close(targets[place], torch.tensor([0.05, 0, math.log(1.1), 0]))

    missed = 0.4 * 20 * (len(positive) - 1)  # the other positives' logit is -20
    assert losses['loss_cls'].item() == pytest.approx((0.4 * 0.5**1.5 * math.log(2) + missed) / divisor, rel=1e-4)
    huber = 0.0
    for error in (0.1 - targets[positive][targets[positive] != 0]).abs().tolist():
        huber += error**2 / 2 if error <= 0.15 else 0.15 * (error - 0.075)
    assert losses['loss_bbox'].item() == pytest.approx(50 * huber / (4 * divisor), rel=1e-4)


def test_objects_are_clipped() -> None:
    """Boxes end at the input's last pixel."""
    head = _head().eval()
    maps = head(_features(images=1))
    meta = dict(batch_input_shape=(128, 128))
    beyond, within = (_objects([50.0, 60, 300, 128]), _objects([50.0, 60, 127, 127]))
    assert head.loss_by_feat(*maps, [beyond], [meta]) == head.loss_by_feat(*maps, [within], [meta])


def _detect(scores: dict[tuple[int, int], float], **test_cfg) -> InstanceData:
    """Return the detections where the given (anchor of P7, channel) have scores and all others none."""
    head = _head(test_cfg={**HEAD['test_cfg'], **test_cfg})
    logits = [torch.full((1, 36, 128 // s, 128 // s), -20.0) for s in (8, 16, 32, 64, 128)]
    for (anchor, channel), score in scores.items():
        logits[4][0, 4 * anchor + channel] = math.log(score / (1 - score))
    deltas = [level.new_zeros(level.shape) for level in logits]
    meta = dict(batch_input_shape=(128, 128), scale_factor=(2.0, 2.0))
    return head.predict_by_feat(logits, deltas, batch_img_metas=[meta])[0]


def test_detections() -> None:
    """Channel 0 finds nothing, classes don't suppress each other, boxes end at the input's last pixel."""
    found = _detect({(0, 0): 0.9, (0, 1): 0.5, (0, 2): 0.7, (0, 3): 0.04, (3, 1): 0.6})
    # The anchors of two scales that fill the input are one box after clipping; NMS keeps the better one of class 0.
    assert found.labels.tolist() == [1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.6]))
    assert found.bboxes.tolist() == [[0, 0, 127, 127]] * 2
    assert len(_detect({})) == 0
    assert len(_detect({(0, 1): 0.5, (0, 2): 0.7}, max_per_img=1)) == 1


def test_candidates_are_limited_by_class() -> None:
    """The two best anchors of each class, on all levels, go into NMS."""
    head = _head(test_cfg={**HEAD['test_cfg'], 'nms_pre': 2, 'nms': None})
    logits = [torch.full((1, 36, 128 // s, 128 // s), -20.0) for s in (8, 16, 32, 64, 128)]
    logits[0][0, 1, 0, :3] = torch.tensor([1.0, 2.0, 0.5])  # class 0 at three places of P3
    logits[1][0, 1, 0, 0] = 1.5
    logits[1][0, 2, 0, 0] = 0.0
    meta = dict(batch_input_shape=(128, 128))
    (found,) = head.predict_by_feat(logits, [level * 0 for level in logits], batch_img_metas=[meta])
    assert found.labels.tolist() == [0, 0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 1.5, 0.0]).sigmoid())


def test_nms_leaves_out_worse_candidates() -> None:
    """The detections are those of NMS of all candidates, also where most of the best suppress each other."""
    generator = torch.Generator().manual_seed(0)
    head = _head()
    corners = torch.rand(1000, 2, generator=generator) * 900
    corners[:60] /= 900  # the best suppress each other
    boxes, labels = torch.cat([corners, corners + 90], 1), torch.randint(0, 3, (1000,), generator=generator)
    scores = torch.linspace(1, 0.1, 1000)
    everything = nms_of_image(boxes, scores, labels, 3, HEAD['test_cfg']['nms'])[0]
    assert everything[4] > 60 and len(everything) < 1000
    for limit in (5, 40, 1000):
        kept, found = head._nms(boxes, scores, labels, dict(HEAD['test_cfg'], max_per_img=limit))
        assert kept.tolist() == everything[:limit].tolist() and torch.equal(found, scores[kept])


def test_wrong_nms_is_refused() -> None:
    with pytest.raises(ValueError, match='iou_threshold'):
        _head(test_cfg={**HEAD['test_cfg'], 'nms': dict(iou_threshold=2)})
