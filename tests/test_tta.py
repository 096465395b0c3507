"""Test-time augmentation: views map back onto the image, and their masks are averaged."""

from typing import Any

import pytest
import torch
from helpers.small_model import batch, noise_image, sample, small_model
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from centermask import CenterMask, CenterMaskTTA
from centermask.roi_head import Masks

HEIGHT, WIDTH = 64, 96
IMAGE = noise_image(HEIGHT, WIDTH)
View = tuple[Tensor, DetDataSample]


def _view(image: Tensor = IMAGE, **metainfo) -> View:
    return image, sample(*image.shape[1:], **metainfo)


def _flipped(image: Tensor = IMAGE, **metainfo) -> View:
    return _view(image.flip(2), flip=True, flip_direction='horizontal', **metainfo)


def _augmented(model: CenterMask, *views: View | list[View]) -> list[InstanceData]:
    """Return results of one image in several views, or of a batch whose views are lists."""
    lists = [view if isinstance(view, list) else [view] for view in views]
    data = dict(
        inputs=[[image for image, _ in view] for view in lists], data_samples=[[s for _, s in view] for view in lists]
    )
    with torch.no_grad():
        return [s.pred_instances for s in CenterMaskTTA(module=model).test_step(data)]


def _plain(model: CenterMask, *views: View) -> list[InstanceData]:
    images, samples = zip(*views, strict=True)
    with torch.no_grad():
        return [s.pred_instances for s in model(*batch(model, list(images), list(samples)), mode='predict')]


def _assert_close(result: InstanceData, expected: InstanceData, pixels: int = 0) -> None:
    assert len(result) == len(expected) > 0
    assert torch.equal(result.labels, expected.labels)
    for name in ('bboxes', 'scores', 'mask_scores'):
        torch.testing.assert_close(result[name], expected[name], rtol=1e-4, atol=1e-3)
    assert ((result.masks != expected.masks).sum((1, 2)) <= pixels).all()
    assert expected.masks.any()


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_one_view_equals_plain_testing(recipe: str) -> None:
    model = small_model(recipe)
    _assert_close(_augmented(model, _view())[0], _plain(model, _view())[0])


@pytest.mark.parametrize('nms', [dict(type='soft_nms', iou_threshold=0.3), dict(class_agnostic=True), None])
def test_one_view_with_another_nms(nms: dict | None) -> None:
    """Soft NMS runs once, on the boxes of all views."""
    model = small_model(changes={'test_cfg.nms': nms})
    expected = _plain(model, _view())[0]
    _assert_close(_augmented(model, _view())[0], expected)
    assert not torch.equal(expected.bboxes, _plain(small_model(), _view())[0].bboxes)


def test_one_resized_view_equals_plain_testing() -> None:
    model, meta = small_model(), dict(ori_shape=(2 * HEIGHT, WIDTH // 2), scale_factor=(2.0, 0.5))
    (result,) = _augmented(model, _view(**meta))
    (expected,) = _plain(model, _view(**meta))
    assert result.masks.shape[1:] == (2 * HEIGHT, WIDTH // 2)
    _assert_close(result, expected, pixels=2)


def test_batch_of_images() -> None:
    model, other = small_model(), noise_image(HEIGHT, WIDTH, seed=1)
    results = _augmented(model, [_view(), _view(other)], [_flipped(), _flipped(other)])
    for result, image in zip(results, (IMAGE, other), strict=True):
        _assert_close(result, _augmented(model, _view(image), _flipped(image))[0], pixels=2)


def _mirrored(result: InstanceData, width: int) -> InstanceData:
    left, top, right, bottom = result.bboxes.unbind(1)
    return InstanceData(
        bboxes=torch.stack([width - right, top, width - left, bottom], 1),
        masks=result.masks.flip(2),
        **{name: result[name] for name in ('scores', 'labels', 'mask_scores')},
    )


def test_flipped_view_maps_back() -> None:
    """Results of a flipped view are the mirrored results of the mirrored image."""
    model = small_model()
    _assert_close(_augmented(model, _flipped())[0], _mirrored(_plain(model, _view(IMAGE.flip(2)))[0], WIDTH), pixels=2)


def test_flipped_view_by_whole_pixels() -> None:
    """The paper recipe flips by x → W − x − 1."""
    model = small_model('paper', {'test_cfg.nms.offset': 0})
    (result,) = _augmented(model, _flipped(flip_offset=1))
    expected = _mirrored(_plain(model, _view(IMAGE.flip(2)))[0], WIDTH - 1)
    torch.testing.assert_close(result.bboxes, expected.bboxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(result.mask_scores, expected.mask_scores, rtol=1e-4, atol=1e-4)


def test_boxes_of_both_views() -> None:
    """Detections of both views are kept, those found in both once."""
    model = small_model()
    first, second = _plain(model, _view())[0], _plain(model, _view(IMAGE.flip(2)))[0]
    model.test_cfg = dict(model.test_cfg, max_per_img=1000)
    (result,) = _augmented(model, _view(), _flipped())
    assert max(len(first), len(second)) < len(result) <= len(first) + len(second)
    assert result.scores[0] == max(first.scores[0], second.scores[0])
    model.test_cfg = dict(model.test_cfg, max_per_img=3)
    assert len(_augmented(model, _view(), _flipped())[0]) == 3


def _fake_masks(model: CenterMask, monkeypatch: pytest.MonkeyPatch, *views: tuple[Tensor, float]) -> None:
    """Make the mask branch return these probabilities and IoUs for every RoI, view by view."""
    views_left = iter(views)

    def forward(x: Any, boxes: list[Tensor], labels: list[Tensor], metas: Any) -> Masks:
        probability, iou = next(views_left)
        rois = sum(map(len, boxes))
        return Masks(probability.logit().expand(rois, 28, 28), torch.full((rois,), iou))

    monkeypatch.setattr(model.roi_head, 'forward', forward)


@pytest.mark.parametrize('probability, covered', [(0.7, True), (0.5, False)])
def test_views_are_averaged(probability: float, covered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of 0.4 and 0.7 is above the threshold, that of 0.4 and 0.5 below."""
    model = small_model()
    _fake_masks(model, monkeypatch, (torch.tensor(0.4), 0.2), (torch.tensor(probability), 0.8))
    (result,) = _augmented(model, _view(), _view())
    assert len(result) > 0
    assert result.masks.any().item() is covered
    torch.testing.assert_close(result.mask_scores, result.scores * 0.5)


def test_masks_of_flipped_views_are_flipped_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The left half of a mask is the right half in the mirror image."""
    model, left = small_model(), torch.full((28, 28), 0.01)
    left[:, :14] = 0.99
    _fake_masks(model, monkeypatch, (left, 0.5), (left.flip(1), 0.5))
    (result,) = _augmented(model, _view(), _flipped())
    for box, mask in zip(result.bboxes, result.masks, strict=True):
        columns = torch.arange(WIDTH) + 0.5
        assert not mask[:, columns > (box[0] + box[2]) / 2 + 0.5].any()
    assert result.masks.any()


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_nothing_found(recipe: str) -> None:
    model = small_model(recipe, {'test_cfg.score_thr': 1.0})
    (result,) = _augmented(model, _view(), _flipped())
    assert result.bboxes.shape == (0, 4)
    assert result.masks.shape == (0, HEIGHT, WIDTH)
    assert result.mask_scores.shape == (0,)


def test_without_mask_scoring() -> None:
    (result,) = _augmented(small_model(changes={'roi_head.mask_iou_head': None}), _view(), _flipped())
    assert len(result.masks) == len(result.bboxes) > 0
    assert 'mask_scores' not in result


@pytest.mark.parametrize('recipe', ['star', 'paper'])
def test_fcos_alone(recipe: str) -> None:
    """Without the mask branch the same boxes are found."""
    model, alone = small_model(recipe), small_model(recipe, {'roi_head': None})
    alone.load_state_dict(model.state_dict(), strict=False)
    (expected,), (found,) = (_augmented(m, _view(), _flipped()) for m in (model, alone))
    assert len(found) > 0
    assert set(found.keys()) == {'bboxes', 'scores', 'labels'}
    for name in ('bboxes', 'scores', 'labels'):
        torch.testing.assert_close(found[name], expected[name])


def test_other_flips_are_refused() -> None:
    with pytest.raises(ValueError, match='flips horizontally, not vertically'):
        _augmented(small_model(), _view(IMAGE.flip(1), flip=True, flip_direction='vertical'))
