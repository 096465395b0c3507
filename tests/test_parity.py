"""The same numbers as the released implementations, for weights that are a function of key and shape.

What the arrays hold, and the tolerances, are told in the README beside them.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmdet.structures.mask import PolygonMasks
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor

from centermask import CenterMask
from centermask.checkpoints.layouts import RECIPES

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
RELEASED = {
    'star/lite_V_19_slim': 'centermask-lite-star_v2-19-slim_fpn_4x_coco',
    'paper/lite_V_39': 'centermask-lite_v2-39_fpn_4x_coco',
}
# By so much these differ in the references themselves between one thread and two; a value near 0 needs it.
NOISE = 4e-6
LOSSES = dict(cls='loss_cls', box='loss_bbox', ctr='loss_centerness', mask='loss_mask', maskiou='loss_mask_iou')


def _our_name(key: str, recipe: str) -> str:
    return RECIPES[recipe].table.to_ours(key)[0]


class Released(NamedTuple):
    """A model with the made-up weights, and what the release computes with them."""

    name: str
    model: CenterMask
    expected: dict[str, np.ndarray]
    tools: ModuleType
    images: dict[str, np.ndarray]
    polygons: dict[str, list]

    def check(self, name: str, maps: Tensor, tolerance: float) -> None:
        """Compare a map's fingerprint, in units of its standard deviation."""
        expected = self.expected[name]
        deviation = np.abs(self.tools.fingerprint(maps.detach().numpy()) - expected) / expected[1]
        assert deviation.max() < tolerance, name

    def image(self, number: str = '', bias: float | None = None) -> tuple[Tensor, list[DetDataSample]]:
        """``image`` or ``image2``, ready for the model, with ground truth; sets the bias of the box output if given."""
        if bias is not None:
            torch.nn.init.constant_(self.model.bbox_head.conv_reg.bias, bias)
        image, (boxes, labels) = (
            self.images[f'image{number}'],
            (self.images[f'gt_{k}{number}'] for k in ('boxes', 'labels')),
        )
        size = image.shape[:2]
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        polygons = [[np.array(polygon) for polygon in shape] for shape in self.polygons[f'gt_polygons{number}']]
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes).float(),
            labels=torch.from_numpy(labels).long(),
            masks=PolygonMasks(polygons, *size),
        )
        data = dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)], data_samples=[sample])
        data = self.model.data_preprocessor(data, False)
        return data['inputs'], data['data_samples']


@pytest.fixture(scope='module', params=RELEASED)
def weights(request: pytest.FixtureRequest, shared: Path) -> Released:
    spec = importlib.util.spec_from_file_location('synthetic_weights', shared / 'parity/synthetic_weights.py')
    tools = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tools)
    keys = json.loads((shared / f'parity/{request.param}.keys.json').read_text())
    recipe = request.param.split('/')[0]
    config = Config.fromfile(CONFIGS / f'{RELEASED[request.param]}.py')
    config.model.backbone.init_cfg = None
    if recipe == 'paper':
        config.model.roi_head.mask_iou_head.share = 'first_polygon'
    model = MODELS.build(config.model)
    state = {_our_name(key, recipe): torch.from_numpy(value) for key, value in tools.synthetic_state_dict(keys).items()}
    shapes = model.state_dict()
    # A level's scale is a vector of one there and a scalar here; frozen norms count no batches.
    state = {key: value.reshape(shapes[key].shape) if '.scales.' in key else value for key, value in state.items()}
    state |= {key: value for key, value in shapes.items() if key.endswith('num_batches_tracked')}
    model.load_state_dict(state)
    return Released(
        request.param,
        model,
        dict(np.load(shared / f'parity/{request.param}.npz')),
        tools,
        dict(np.load(shared / 'parity/inputs.npz')),
        json.loads((shared / 'parity/inputs.json').read_text()),
    )


@pytest.fixture
def released(weights: Released) -> Iterator[Released]:
    """Each test gets the weights as they were."""
    bias = weights.model.bbox_head.conv_reg.bias
    before = bias.detach().clone()
    weights.model.zero_grad()
    weights.model.eval()
    yield weights
    bias.data.copy_(before)


def test_maps(released: Released) -> None:
    """Backbone, pyramid, the box head's maps, RoI features, masks and their IoU."""
    model, expected = released.model, released.expected
    inputs, (sample,) = released.image()
    with torch.no_grad():
        stages = model.backbone(inputs)
        pyramid = model.neck(stages)
        scores, boxes, centerness = model.bbox_head(pyramid)
        rois = bbox2roi([torch.from_numpy(released.images['boxes']).float()])
        labels = torch.from_numpy(released.images['labels']).long()
        pooled: list[Tensor] = []
        hook = model.roi_head.mask_roi_extractor.register_forward_hook(lambda *call: pooled.append(call[2]))
        masks = model.roi_head.mask_forward(pyramid, rois, labels, [sample.metainfo])
        hook.remove()
    for i, stage in enumerate(stages):
        released.check(f'backbone.c{i + 3}', stage, 5e-5)
    for i, level in enumerate(pyramid):
        released.check(f'fpn.p{i + 3}', level, 5e-5)
        unit = model.bbox_head.strides[i] if model.bbox_head.norm_on_bbox else 1
        released.check(f'fcos.cls.p{i + 3}', scores[i], 3e-4)
        released.check(f'fcos.ctr.p{i + 3}', centerness[i], 3e-4)
        released.check(f'fcos.box.p{i + 3}', boxes[i] * unit, 3e-4)
    released.check('roi.features', pooled[0], 3e-4)
    # Of a logit near 0 rounding is all that there is.
    np.testing.assert_allclose(masks.logits, expected['mask.logits'], rtol=1e-4, atol=NOISE)
    np.testing.assert_allclose(masks.ious, expected['mask.iou'], rtol=1e-4, atol=NOISE)


def test_detections(released: Released) -> None:
    """With biases of 3 on the box output: 50 boxes, matched by label and place."""
    inputs, samples = released.image(bias=3.0)
    with torch.no_grad():
        found = released.model.predict(inputs, samples)[0].pred_instances
    boxes, scores, labels, mask_scores, areas = (
        released.expected[f'bias3.det.{kind}'] for kind in ('boxes', 'scores', 'labels', 'mask_scores', 'mask_areas')
    )
    assert len(found) == len(boxes) == 50
    matches = []
    for box, label in zip(boxes, labels, strict=True):
        distances = np.abs(found.bboxes.numpy() - box).max(1) + 1e6 * (found.labels.numpy() != label)
        assert distances.min() < 0.01
        matches.append(distances.argmin())
    assert len(set(matches)) == 50
    np.testing.assert_allclose(found.scores[matches], scores, rtol=1e-4)
    np.testing.assert_allclose(found.mask_scores[matches], mask_scores, rtol=1e-4, atol=NOISE)
    assert np.abs(found.masks[matches].sum((1, 2)).numpy() - areas).max() <= 2


@pytest.mark.parametrize('case, bias', [('multi', None), ('bias3', 3.0)])
def test_training(released: Released, case: str, bias: float | None) -> None:
    """The five losses of an image with 16 objects, the number of RoIs, and gradients of their sum."""
    model, expected = released.model.train(), released.expected
    rois: list[int] = []
    hook = model.roi_head.mask_roi_extractor.register_forward_hook(lambda *call: rois.append(len(call[2])))
    losses = model.loss(*released.image('2', bias))
    hook.remove()
    assert {kind: losses[name].item() for kind, name in LOSSES.items()} == pytest.approx(
        {kind: expected[f'{case}.loss.{kind}'].item() for kind in LOSSES}, rel=1e-4
    )
    assert rois == [expected[f'{case}.train.positives'].item()]

    sum(losses.values()).backward()
    parameters, recipe = dict(model.named_parameters()), released.name.split('/')[0]
    prefix = f'{case}.grad.'
    gradients = {key.removeprefix(prefix): value.item() for key, value in expected.items() if key.startswith(prefix)}
    assert gradients
    for key, value in gradients.items():
        assert parameters[_our_name(key, recipe)].grad.norm().item() == pytest.approx(value, rel=5e-3), key
