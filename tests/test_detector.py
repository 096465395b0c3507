"""The complete detector: gradients reach all parameters, and results don't depend on how it is run."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import mmcv
import mmdet
import numpy as np
import pytest
import torch
from helpers.small_model import batch, noise_image, sample, small_model, square, without_gradient
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData

from centermask import CenterMask
from centermask.utils.errors import InputError

LOSSES = ['loss_cls', 'loss_bbox', 'loss_centerness', 'loss_mask', 'loss_mask_iou']
OBJECTS = [square(0, 4, 6, 40, 50), square(2, 30, 20, 70, 44)]
RECIPES = pytest.mark.parametrize('recipe', ['star', 'paper'])


def _losses(model: CenterMask, *objects: list, size: tuple[int, int] = (64, 80)) -> dict[str, torch.Tensor]:
    """Return the losses of one image of noise for each list of objects."""
    images = [noise_image(*size, seed=i) for i in range(len(objects))]
    return model.loss(*batch(model, images, [sample(*size, shape) for shape in objects]))


def _predict(model: CenterMask, *sizes: tuple[int, int]) -> list[InstanceData]:
    """Return the results of an image of noise for each size."""
    images = [noise_image(*size, seed=i) for i, size in enumerate(sizes)]
    with torch.no_grad():
        return [s.pred_instances for s in model.predict(*batch(model, images, [sample(*size) for size in sizes]))]


def _assert_same(results: list[InstanceData], others: list[InstanceData]) -> None:
    assert len(results) == len(others)
    for result, other in zip(results, others, strict=True):
        assert len(result) == len(other) > 0
        assert torch.equal(result.labels, other.labels)
        for name in ('bboxes', 'scores', 'mask_scores'):
            torch.testing.assert_close(result[name], other[name], rtol=1e-4, atol=1e-4)
        assert (result.masks != other.masks).float().mean() < 1e-3


@RECIPES
def test_losses(recipe: str) -> None:
    losses = _losses(small_model(recipe).train(), OBJECTS, [])
    assert list(losses) == LOSSES
    assert all(loss.shape == () and loss.isfinite() and loss > 0 for loss in losses.values())


def _zero_gradients(model: CenterMask) -> Iterator[str]:
    """Yield trainable parameters with a gradient of 0, without the scales of levels that have no object."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not parameter.grad.any() and not name.startswith('bbox_head.scales.'):
            yield name


@RECIPES
def test_gradients_reach_every_parameter(recipe: str) -> None:
    model = small_model(recipe).train()
    sum(_losses(model, OBJECTS).values()).backward()
    assert without_gradient(model) == []
    assert list(_zero_gradients(model)) == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@RECIPES
def test_rois_of_training_are_detections_of_the_same_pass(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are at most 100 (50 in testing) and have no gradients."""
    model = small_model(recipe, {'test_cfg.max_per_img': 5, 'train_cfg.max_per_img': 7}).train()
    seen = []
    loss = model.roi_head.loss
    monkeypatch.setattr(
        model.roi_head, 'loss', lambda x, found, samples: (seen.extend(found), loss(x, found, samples))[1]
    )
    _losses(model, OBJECTS)
    assert len(seen[0]) == 7
    assert not seen[0].bboxes.requires_grad
    assert len(_predict(model.eval(), (64, 80))[0].bboxes) <= 5


@RECIPES
def test_results(recipe: str) -> None:
    (result,) = _predict(small_model(recipe), (64, 80))
    count = len(result)
    assert 0 < count <= 50
    assert result.bboxes.shape == (count, 4) and result.labels.shape == (count,)
    assert result.masks.shape == (count, 64, 80) and result.masks.dtype == torch.bool
    assert result.masks.any()
    assert result.mask_scores.shape == result.scores.shape == (count,)
    assert (result.bboxes >= 0).all() and (result.bboxes <= torch.tensor([80, 64, 80, 64])).all()


@RECIPES
def test_fcos_alone(recipe: str) -> None:
    """Without the mask branch the boxes and the box head's losses are the same."""
    model, alone = small_model(recipe), small_model(recipe, {'roi_head': None})
    alone.load_state_dict(model.state_dict(), strict=False)
    meta = dict(ori_shape=(32, 160), scale_factor=(0.5, 2.0))
    for rescale in (True, False):
        with torch.no_grad():
            (expected,), (found,) = (
                m.predict(*batch(m, [noise_image(64, 80)], [sample(64, 80, **meta)]), rescale=rescale)
                for m in (model, alone)
            )
        expected, found = expected.pred_instances, found.pred_instances
        assert len(found) > 0
        assert set(found.keys()) == {'bboxes', 'scores', 'labels'}
        for name in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(found[name], expected[name])
    losses, expected = _losses(alone.train(), OBJECTS, []), _losses(model.train(), OBJECTS, [])
    assert list(losses) == LOSSES[:3]
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])
    inputs, samples = batch(alone, [noise_image(64, 80)], [sample(64, 80)])
    assert [len(maps) for maps in alone(inputs, samples)] == [5, 5, 5]


@RECIPES
def test_batch_equals_each_alone(recipe: str) -> None:
    """Results of images that are padded to one size are those of each image alone."""
    model, sizes = small_model(recipe), [(64, 80), (60, 96), (64, 96)]
    images, samples = [noise_image(*size, seed=i) for i, size in enumerate(sizes)], [sample(*size) for size in sizes]
    with torch.no_grad():
        together = model.predict(*batch(model, images, samples))
        alone = [model.predict(*batch(model, [image], [s]))[0] for image, s in zip(images, samples, strict=True)]
    _assert_same([s.pred_instances for s in together], [s.pred_instances.clone() for s in alone])
    assert [s.pred_instances.masks.shape[1:] for s in together] == sizes


def test_tensor_mode() -> None:
    """It returns three maps for each level, then logits and IoUs of the masks in both images."""
    model = small_model()
    inputs, samples = batch(model, [noise_image(64, 80), noise_image(64, 80, seed=1)], [sample(64, 80), sample(64, 80)])
    with torch.no_grad():
        scores, boxes, centerness, logits, ious = model(inputs, samples, mode='tensor')
    sizes = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    for maps, channels in ((scores, 3), (boxes, 4), (centerness, 1)):
        assert [tuple(level.shape) for level in maps] == [(2, channels, *size) for size in sizes]
    assert len(logits) == len(ious) > 0
    assert logits.shape[1:] == (28, 28)


@pytest.mark.parametrize('recipe, background', [('star', 0), ('paper', 1)])
def test_one_number_of_classes_sets_every_head(recipe: str, background: int) -> None:
    model = small_model(recipe, {'num_classes': 7})
    assert model.bbox_head.conv_cls.out_channels == 7
    assert model.roi_head.mask_head.conv_logits.out_channels == 7 + background
    assert model.roi_head.mask_iou_head.fc_mask_iou.out_features == 7 + background
    assert _predict(model, (64, 80))[0].labels.max() < 7


@RECIPES
def test_highest_class_has_a_mask(recipe: str) -> None:
    losses = _losses(small_model(recipe).train(), [square(2, 4, 6, 40, 50)])
    assert losses['loss_mask'].isfinite()


def test_channels_last() -> None:
    plain, other = small_model(), small_model(changes={'channels_last': True})
    assert other.backbone.stem[1].conv.weight.is_contiguous(memory_format=torch.channels_last)
    _assert_same(_predict(other, (64, 80), (64, 80)), _predict(plain, (64, 80), (64, 80)))
    expected, losses = _losses(plain.train(), OBJECTS), _losses(other.train(), OBJECTS)
    for name in LOSSES:
        assert losses[name].item() == pytest.approx(expected[name].item(), rel=1e-3)


def test_channels_last_is_refused_for_deformable_convs() -> None:
    """MMCV's deformable convs read memory as contiguous, whatever its format."""
    deformable = {'backbone.dcn_stages': (False, False, False, True)}
    with pytest.raises(ValueError, match='leave channels_last=False'):
        small_model(changes={**deformable, 'channels_last': True})
    assert len(_predict(small_model(changes=deformable), (64, 80))[0]) > 0


def test_strides_of_the_extractor_are_the_box_heads_first() -> None:
    """Otherwise RoIs would be pooled from wrong levels without an error."""
    with pytest.raises(ValueError, match=r'featmap_strides \[16, 32, 64\] must be the first strides of the box head'):
        small_model(changes={'roi_head.mask_roi_extractor.featmap_strides': [16, 32, 64]})


@RECIPES
def test_mixed_precision(recipe: str) -> None:
    """The model trains and detects under autocast to bfloat16."""
    model = small_model(recipe).train()
    with torch.autocast('cpu', torch.bfloat16):
        losses = _losses(model, OBJECTS)
        (result,) = _predict(model.eval(), (64, 80))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert without_gradient(model) == []
    assert result.bboxes.dtype == torch.float32 and len(result.masks) > 0


def test_mmdetection_api(tiny_config: Path, tmp_path: Path) -> None:
    """``init_detector`` and ``inference_detector`` on arrays and files."""
    config = Config.fromfile(tiny_config)
    model = MODELS.build(config.model)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(config.metainfo))), tmp_path / 'a.pth')
    detector = init_detector(str(tiny_config), str(tmp_path / 'a.pth'), device='cpu')
    assert detector.dataset_meta['classes'] == tuple(config.classes)
    file = next((tiny_config.parent / 'shapes/val/images').iterdir())
    by_file, by_array = inference_detector(detector, [str(file), np.zeros((160, 120, 3), np.uint8)][:1] * 2)
    assert len(by_file.pred_instances) > 0
    assert torch.equal(by_file.pred_instances.bboxes, by_array.pred_instances.bboxes)
    image = mmcv.imread(file)
    arrays = (image[..., 0], image[..., :1], np.dstack([image, image[..., 0]]), image.astype(np.uint16) * 257)
    for i, array in enumerate(arrays):
        cv2.imwrite(str(tmp_path / f'{i}.png'), array)
    by_file = inference_detector(detector, [str(tmp_path / f'{i}.png') for i in range(len(arrays))])
    for same, array in zip(by_file, arrays, strict=True):  # MMDetection takes no files any more after an array
        assert torch.equal(same.pred_instances.scores, inference_detector(detector, array).pred_instances.scores)
    result = inference_detector(detector, np.zeros((100, 120, 3), np.uint8)).pred_instances
    assert result.masks.shape[1:] == (100, 120)
    for array in (image.astype(np.float32), image[..., :2], image[None], image[:0]):
        with pytest.raises(InputError, match=r'The image is an array of .* of the shape'):
            inference_detector(detector, array)
    with pytest.warns(UserWarning, match='read almost black'):
        inference_detector(detector, image.astype(np.uint16) * 16)


def test_mmdetection_counts_operations(tiny_config: Path) -> None:
    """MMDetection's ``tools/analysis_tools/get_flops.py`` traces the model on images of the config."""
    script = Path(mmdet.__file__).parent / '.mim/tools/analysis_tools/get_flops.py'
    command = [sys.executable, str(script), str(tiny_config), '--num-images', '1']
    done = subprocess.run(command, cwd=tiny_config.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parameters = sum(p.numel() for p in MODELS.build(Config.fromfile(tiny_config).model).parameters())
    assert f'Params: {parameters / 1e6:.3f}M' in done.stdout
    assert re.search(r'Flops: \d', done.stdout)
