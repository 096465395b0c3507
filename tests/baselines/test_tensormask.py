"""TensorMask: positive windows and detections alone against the full swap, its losses, results and released files."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.read_configs import read_config
from helpers.release_layout import recipe_of, to_release
from helpers.small_model import Object, batch, noise_image, sample, square, without_gradient
from mmdet.registry import MODELS
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData
from parity.inputs import read_arrays, read_inputs
from parity.tensormask import assignment
from torch import Tensor

from centermask import TensorMask
from centermask.baselines.windows import locate
from centermask.checkpoints.conversion import convert
from centermask.checkpoints.layouts import from_release
from centermask.checkpoints.loading import load_weights
from centermask.checkpoints.reading import Contents, read
from centermask.mask_pasting import paste
from centermask.structures.rle_masks import RLEMasks

NAME = 'tensormask_r50_fpn_1x_coco'
CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
HEIGHT, WIDTH = 96, 160
# Windows of P2, P3 and P4.
OBJECTS = [square(0, 4, 6, 40, 40), square(2, 60, 20, 130, 80), square(1, 30, 2, 150, 94), square(1, 100, 60, 110, 70)]


def _small(**changes) -> TensorMask:
    """Build a narrow model with random weights, which finds something."""
    config = read_config(NAME)
    changes = {'num_classes': 3, 'test_cfg.max_per_img': 8, 'test_cfg.score_thr': 0.0, **changes}
    config.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    model = config.model
    model.backbone.update(init_cfg=None, base_channels=4)
    model.neck.update(in_channels=[16, 32, 64, 128], out_channels=8)
    model.bbox_head.update(in_channels=8, feat_channels=8, box_channels=8, stacked_convs=1)
    model.mask_head.update(in_channels=8, feat_channels=8, stacked_convs=1)
    torch.manual_seed(0)
    return MODELS.build(model)


def _batch(model: TensorMask, *objects: list[Object]) -> tuple[Tensor, list]:
    images = [noise_image(HEIGHT, WIDTH, seed=i) for i in range(len(objects))]
    return batch(model, images, [sample(HEIGHT, WIDTH, shapes) for shapes in objects])


@pytest.fixture(scope='module')
def model() -> TensorMask:
    return _small().eval()


def test_initial_weights() -> None:
    """Convs of the heads are drawn from N(0, 0.01), with biases of 0 and class scores of 0.01."""
    model = _small(**{'mask_head.feat_channels': 32})
    model.init_weights()
    for head in (model.bbox_head, model.mask_head):
        for name, parameter in head.named_parameters():
            if name == 'conv_cls.bias':
                torch.testing.assert_close(parameter.sigmoid(), torch.full_like(parameter, 0.01))
            elif name.endswith('bias'):
                assert not parameter.any(), name
            else:
                assert parameter.std().item() == pytest.approx(0.01, rel=0.2), name


def test_windows_are_numbered_like_priors(model: TensorMask) -> None:
    """Level, row, column and size of each number give the box of the generator; images are kept apart."""
    sizes = [torch.Size([6, 10]), torch.Size([3, 5]), torch.Size([2, 3]), *[torch.Size([1, 2])] * 3]
    windows, strides = model.bbox_head.windows([torch.empty(1, 1, *size) for size in sizes])
    numbers = torch.arange(len(windows))
    found = locate([numbers[:7], numbers[7:]], sizes, 2)
    assert found.places.images.tolist() == [0] * 7 + [1] * (len(windows) - 7)
    assert torch.equal(strides.long(), 4 * 2**found.levels)
    sides = torch.tensor([44, 60])[found.sizes] * 2**found.levels
    centres = torch.stack([found.places.columns, found.places.rows], dim=1) * strides[:, None]
    torch.testing.assert_close(windows, torch.cat([centres - sides[:, None] / 2, centres + sides[:, None] / 2], dim=1))


def test_masks_of_windows_alone(model: TensorMask) -> None:
    """Values, and gradients of features and weights, are those of the full swap."""
    head = model.mask_head
    x = [torch.randn(2, 8, *size, requires_grad=True) for size in ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2), (1, 1))]
    numbers = [torch.tensor([0, 3, 479, 480, 481, 600, 630]), torch.tensor([5, 599, 640, 643, 645, 647])]
    full = [masks for level in head(x) for masks in level]
    windows = locate(numbers, [level.shape[-2:] for level in x], 2)
    assert {*windows.levels.tolist()} == {0, 1, 2, 3, 4, 5}
    seen, losses = [], [torch.zeros(()), torch.zeros(())]
    for chosen, alone in head.masks_of(x, numbers):
        for i, mask in zip(chosen.tolist(), alone, strict=True):
            n, y, z = (axis[i] for axis in windows.places)
            expected = full[2 * windows.levels[i] + windows.sizes[i]][n, :, y, z].view_as(mask)
            torch.testing.assert_close(mask, expected)
            losses = [losses[0] + mask.sin().sum(), losses[1] + expected.sin().sum()]
            seen.append(i)
    assert sorted(seen) == [*range(13)]
    learning = [*x, *head.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad(loss, learning) for loss in losses), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_losses() -> None:
    """Each by its definition, of two images: sums over positive windows divided by their number."""
    model = _small().train()
    inputs, samples = _batch(model, OBJECTS, OBJECTS[1:2])
    losses = model.loss(inputs, samples)
    x = model.extract_feat(inputs)
    windows, strides = model.bbox_head.windows(x)
    cls_scores, bbox_preds = model.bbox_head(x)
    masks = model.mask_head(x)
    assigned = [model.bbox_head.assign(windows, strides, s.gt_instances) for s in samples]
    count = sum(map(len, assigned))
    assert len(assigned[0]) > len(assigned[1]) > 3
    where = locate([torch.arange(len(windows))], [level.shape[-2:] for level in x], 2)
    loss_cls = loss_bbox = loss_mask = 0.0
    for image, (positive, s) in enumerate(zip(assigned, samples, strict=True)):
        objects = dict(zip(positive.numbers.tolist(), positive.objects.tolist(), strict=True))
        for number in range(len(windows)):
            k, size = int(where.levels[number]), int(where.sizes[number])
            y, z = where.places.rows[number], where.places.columns[number]
            logits = cls_scores[k][image, 3 * size : 3 * size + 3, y, z]
            target = torch.zeros(3)
            if number in objects:
                target[s.gt_instances.labels[objects[number]]] = 1
            weight = 0.3 * target + 0.7 * (1 - target)
            loss_cls -= (weight * F.logsigmoid(3 * (2 * target - 1) * logits) / 3).sum()
            if number not in objects:
                continue
            (a, b, c, d), (left, top, right, bottom) = windows[number], s.gt_instances.bboxes[objects[number]]
            side = c - a
            delta = torch.stack([1.5 * (left + right - a - c) / 2 / side, 1.5 * (top + bottom - b - d) / 2 / side])
            delta = torch.cat([delta, 0.75 * torch.stack([(right - left) / side, (bottom - top) / side]).log()])
            loss_bbox += (bbox_preds[k][image, 4 * size : 4 * size + 4, y, z] - delta).abs().sum()
            logits = masks[k][size][image, :, y, z]
            cells = round(len(logits) ** 0.5)
            middle = (torch.arange(cells) + 0.5) * side / cells
            inside = ((middle + b > top) & (middle + b < bottom))[:, None] & (middle + a > left) & (middle + a < right)
            target = inside.flatten().float()
            bce = F.binary_cross_entropy_with_logits(logits, target, weight=1 + target / 2, reduction='mean')
            loss_mask += 2 * bce
    assert losses['loss_cls'].item() == pytest.approx(loss_cls.item() / count, rel=1e-4)
    assert losses['loss_bbox'].item() == pytest.approx(loss_bbox.item() / count, rel=1e-4)
    assert losses['loss_mask'].item() == pytest.approx(loss_mask.item() / count, rel=0.02)  # cells that edges cross


@pytest.mark.parametrize(
    ('objects', 'mask'),
    [
        ([], False),
        ([square(0, 10, 10, 10.5, 10.4)], True),
        ([(0, [[4.0, 4, 40, 4, 20, 4]])], False),  # a box without area
        ([(0, [[4.0, 4, 40, 40, 20, 20]])], False),  # a mask without area
        ([square(1, 0, 0, WIDTH, HEIGHT)], True),
    ],
)
def test_odd_objects(objects: list[Object], mask: bool) -> None:
    """None, a tiny one, one without area, one that fills the image: losses are finite and reach every parameter."""
    model = _small().train()
    losses = model.loss(*_batch(model, objects))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert without_gradient(model) == []
    assert (losses['loss_mask'] > 0) == mask


def test_bitmaps_are_like_polygons() -> None:
    model = _small().train()
    inputs, samples = _batch(model, OBJECTS)
    expected = model.loss(inputs, samples)['loss_mask']
    truth = samples[0].gt_instances
    truth.masks = BitmapMasks(truth.masks.to_ndarray(), HEIGHT, WIDTH)
    torch.testing.assert_close(model.loss(inputs, samples)['loss_mask'], expected, rtol=0.05, atol=0)


def test_results(model: TensorMask) -> None:
    """Masks are those of the detections' windows, pasted there; boxes are clipped; results are the original's size."""
    inputs, samples = _batch(model, [], [])
    for s in samples:
        s.set_metainfo(dict(ori_shape=(48, 80), scale_factor=(2.0, 2.0)))
    with torch.no_grad():
        x = model.extract_feat(inputs)
        raw = model.bbox_head.detect(*model.bbox_head(x))
        masks = model.mask_head.probabilities(x, [found.numbers for found in raw])
        results = [s.pred_instances for s in model.predict(inputs, samples)]
        fused = [s.pred_instances for s in model(inputs, samples, mode='predict')]
    assert [len(found) for found in raw] == [8, 8]
    for found, result, of_image in zip(raw, results, (masks[:8], masks[8:]), strict=True):
        boxes = torch.minimum((found.bboxes / 2).clamp(min=0), torch.tensor([80.0, 48, 80, 48]))
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        pasted = paste(of_image, (found.windows / 2).numpy(), (48, 80), 0.5, 'sampled')
        torch.testing.assert_close(result.bboxes, boxes[kept])
        assert torch.equal(result.masks, torch.from_numpy(pasted)[kept])
        assert torch.equal(result.scores, found.scores[kept]) and torch.equal(result.labels, found.labels[kept])
        assert sorted(result.keys()) == ['bboxes', 'labels', 'masks', 'scores'] and result.masks.sum() > 0
    for result, plain in zip(fused, results, strict=True):
        torch.testing.assert_close(result.bboxes, plain.bboxes, rtol=1e-4, atol=1e-3)


def test_empty_boxes_are_dropped_without_a_refill(model: TensorMask) -> None:
    inside, outside = torch.tensor([10.0, 10, 30, 30]), torch.tensor([-60.0, 10, -5, 30])
    found = InstanceData(
        bboxes=torch.stack([outside, inside]),
        scores=torch.tensor([0.9, 0.8]),
        labels=torch.tensor([0, 1]),
        windows=torch.stack([outside, inside]),
        numbers=torch.tensor([0, 1]),
    )
    head = model.bbox_head
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, 'detect', lambda *args: [found], raising=False)
        (result,) = head.predict_by_feat([], [], batch_img_metas=[dict(img_shape=(HEIGHT, WIDTH))])
    assert result.labels.tolist() == [1] and result.windows.tolist() == [inside.tolist()]


def test_selection(model: TensorMask) -> None:
    """Of all levels and classes the best ``nms_pre`` above the threshold, NMS within each class, the best of these."""
    head = model.bbox_head
    sizes = ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2), (1, 1))
    scores, deltas = [torch.full((1, 6, *s), -9.0) for s in sizes], [torch.zeros(1, 8, *s) for s in sizes]
    scores[0][0, 0, 4, 4], scores[0][0, 0, 4, 5], scores[0][0, 4, 4, 4] = 2, 1.9, 1.5  # the second overlaps the first
    scores[2][0, 5, 1, 1], scores[5][0, 1, 0, 0], scores[4][0, 1, 0, 0] = 1, 0.5, -2.9
    cfg = dict(score_thr=0.06, nms_pre=5, nms=dict(type='nms', iou_threshold=0.5), max_per_img=3)
    (found,) = head.detect(scores, deltas, cfg)
    assert found.labels.tolist() == [0, 1, 2]
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 1.5, 1.0]).sigmoid())
    torch.testing.assert_close(found.bboxes, found.windows)  # deltas of 0
    assert [w[2] - w[0] for w in found.windows.tolist()] == [44, 60, 240]
    assert len(head.detect(scores, deltas, dict(cfg, max_per_img=9))[0]) == 4  # 5 before NMS; 0.05 isn't above 0.06
    assert len(head.detect(scores, deltas, dict(cfg, max_per_img=9, score_thr=0.05, nms_pre=9))[0]) == 5
    assert len(head.detect(scores, deltas, dict(cfg, score_thr=0.99))[0]) == 0


@pytest.mark.parametrize('threshold', [0.0, 1.0])
def test_run_lengths(threshold: float) -> None:
    """They are the masks; also without detections."""
    model = _small(**{'test_cfg.score_thr': threshold}).eval()
    inputs, samples = _batch(model, [])
    with torch.no_grad():
        (result,) = model.predict(inputs, samples)
        masks = result.pred_instances.masks
        model.mask_head.test_cfg['mask_format'] = 'rle'
        (encoded,) = model.predict(inputs, samples)
    assert isinstance(encoded.pred_instances.masks, RLEMasks)
    assert masks.shape == (len(masks), HEIGHT, WIDTH) and (len(masks) > 0) == (threshold == 0)
    np.testing.assert_array_equal(encoded.pred_instances.masks.astype(bool), masks.numpy())


def test_half_precision() -> None:
    model = _small(half_precision=True).eval()
    with torch.no_grad():
        (result,) = model(*_batch(model, []), mode='predict')
    assert result.pred_instances.bboxes.dtype == torch.float32 and len(result.pred_instances) > 0
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.train().loss(*_batch(model, OBJECTS))
    sum(losses.values()).backward()
    assert without_gradient(model) == [] and all(loss.isfinite() for loss in losses.values())


# Released files


def test_released_names(shared: Path) -> None:
    """The release's names and shapes, no other, in both directions."""
    released = json.loads((shared / 'parity/baselines/tensormask_R_50.keys.json').read_text())
    with torch.device('meta'):
        config = read_config(NAME).model
        config.backbone.init_cfg = None
        state = MODELS.build(config).state_dict()
    assert recipe_of(state) == 'tensormask'
    assert {key: list(tensor.shape) for key, tensor in to_release(state, 'tensormask').items()} == released


def _released(model: TensorMask) -> dict[str, np.ndarray]:
    weights = to_release(model.state_dict(), 'tensormask')
    return {name: tensor.numpy() for name, tensor in weights.items()} | {'pixel_mean': np.zeros((3, 1, 1), np.float32)}


@pytest.mark.parametrize('suffix', ['pkl', 'pth'])
def test_loads_released_files(suffix: str, tmp_path: Path) -> None:
    """A pickle of arrays as Detectron2 releases it, and a file that its trainer writes, by MMEngine's loader too."""
    source, path = _small(), tmp_path / f'model_final.{suffix}'
    weights = _released(source)
    if suffix == 'pkl':
        path.write_bytes(pickle.dumps({'model': weights, '__author__': 'Detectron2 Model Zoo'}))
    else:
        torch.save({'model': {k: torch.from_numpy(v) for k, v in weights.items()}, 'iteration': 3}, path)
    translation = from_release(read(str(path)).weights)
    assert (translation.layout, translation.unused, translation.unknown) == ('tensormask', ['pixel_mean'], {})
    torch.manual_seed(1)
    model = _small()
    for tensor in model.state_dict().values():
        tensor.zero_()
    if suffix == 'pkl':
        assert load_weights(model, translation.weights) == []
    else:
        load_checkpoint(model, str(path), strict=True)
    for name, tensor in model.state_dict().items():
        assert name.endswith('num_batches_tracked') or torch.equal(tensor, source.state_dict()[name]), name


@pytest.mark.parametrize(
    ('file', 'schedule'), [('model_final_8f325c.pkl', '1x'), ('model_final_e8df31.pkl', '6x'), ('own.pth', '6x')]
)
def test_converts_released_files(file: str, schedule: str) -> None:
    """The config is that of the file's name, else the longest schedule."""
    config = read_config(NAME).model
    config.backbone.init_cfg = None
    with torch.device('meta'):
        state = MODELS.build(config).state_dict()
    weights = {name: torch.empty(1).expand(t.shape) for name, t in to_release(state, 'tensormask').items()}
    conversion = convert(Contents(weights, 'model', {}), file, CONFIGS)
    assert conversion.config.stem == f'tensormask_r50_fpn_{schedule}_coco'
    assert len(conversion.checkpoint['meta']['dataset_meta']['classes']) == 80


# Numbers of the release


def test_assignment_is_the_releases(shared: Path, model: TensorMask) -> None:
    """Windows, positive and contested ones, objects, deltas and mask targets of both images, without the network."""
    inputs = read_inputs(shared / 'parity/inputs.npz')
    expected = read_arrays(shared / 'parity/baselines/tensormask_R_50.npz', 'file')
    for prefix, image in (('', inputs.single), ('multi.', inputs.multi)):
        height, width = image.image.shape[:2]
        sizes = [(-(-height // 32) * 32 // 4, -(-width // 32) * 32 // 4)]
        for _ in range(5):
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        maps = tuple(torch.empty(1, 1, *size) for size in sizes)
        for p, windows in enumerate(model.bbox_head.prior_generator.grid_priors(sizes, device='cpu'), 2):
            assert len(windows) == expected[f'{prefix}windows.p{p}.count']
            np.testing.assert_array_equal(windows[:4], expected[f'{prefix}windows.p{p}.first'])
            np.testing.assert_array_equal(windows[-4:], expected[f'{prefix}windows.p{p}.last'])
        truth = InstanceData(
            bboxes=torch.from_numpy(image.boxes),
            labels=torch.from_numpy(image.labels),
            masks=PolygonMasks(image.polygons, height, width),
        )
        for name, array in assignment(model, maps, truth).items():
            tolerance = 1e-5 if name == 'assign.deltas' else 0
            np.testing.assert_allclose(array, expected[prefix + name], rtol=0, atol=tolerance, err_msg=name)
