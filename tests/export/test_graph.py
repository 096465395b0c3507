"""The exported graph, run by torch in place of a file: it detects what the model detects, with every option."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_model import batch, noise_image, sample, small_model
from mmengine.config import Config

from centermask import CenterMask
from centermask.export import exported_detector
from centermask.export.compare import Comparison, compare
from centermask.export.exported_detector import ExportedCenterMask
from centermask.export.graph import OUTPUTS, ExportGraph, Preprocessing
from centermask.export.onnx import describe
from centermask.export.runtime import ExportedModel
from centermask.utils.errors import InputError

SIZES = ((96, 128), (130, 64), (70, 90))
IMAGES = [noise_image(*size, seed=i) for i, size in enumerate(SIZES)]


class GraphModel(ExportedModel):
    """The graph in place of a file."""

    def __init__(self, model: CenterMask, full_masks: bool = False, padded: bool = False) -> None:
        graph = ExportGraph(model, full_masks, padded)

        def run(names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            outputs = graph(torch.from_numpy(inputs['images']), torch.from_numpy(inputs['sizes']))
            assert names == [*OUTPUTS, *([] if padded else ['image_index'])]
            return [output.numpy() for output in outputs]

        self.path, self.backend, self._run = 'graph', 'torch', run
        preprocessor = model.data_preprocessor
        self.metadata: Any = SimpleNamespace(
            classes=['a', 'b', 'c'],
            mean=preprocessor.mean.flatten().tolist(),
            std=preprocessor.std.flatten().tolist(),
            divisor=32,
            detections=20 if padded else 0,
            full_masks=full_masks,
            preprocess=False,
            pasting=model.roi_head.pasting,
            mask_threshold=0.5,
        )


@pytest.fixture(params=['star', 'paper'])
def model(request: pytest.FixtureRequest) -> CenterMask:
    """A model of many detections, some of them empty."""
    model = small_model(request.param, {'test_cfg.score_thr': 0.008, 'test_cfg.max_per_img': 20})
    torch.nn.init.normal_(model.bbox_head.conv_reg.weight, std=0.3)
    torch.nn.init.normal_(model.bbox_head.conv_cls.weight, std=0.1)
    torch.nn.init.normal_(model.roi_head.mask_head.conv_logits.weight, std=0.05)  # no cells at the threshold
    return model


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``compared(model, full_masks, padded)`` compares a model with its graph."""
    monkeypatch.setattr(exported_detector, 'ExportedModel', lambda file, backend, threads: file)

    def call(model: CenterMask, *options: bool) -> Comparison:
        model.roi_head.test_cfg['mask_format'] = 'rle'
        graph: Any = GraphModel(model, *options)
        return compare(model, ExportedCenterMask(graph, test_cfg=dict(mask_format='rle')), IMAGES)

    return call


@pytest.mark.parametrize('padded', [False, True])
@pytest.mark.parametrize('full_masks', [False, True])
def test_same_detections(model: CenterMask, full_masks: bool, padded: bool, compared: Any) -> None:
    result = compared(model, full_masks, padded)
    assert result.agreeing == result.total > 60, str(result)
    assert result.box < 1e-2 and result.score < 1e-4, str(result)


@pytest.mark.parametrize(
    'nms', [dict(class_agnostic=True), dict(max_num=7), dict(score_threshold=0.7), dict(iou_threshold=0.1), None]
)
def test_every_setting_of_nms(nms: dict | None, compared: Any) -> None:
    model = small_model('star', {'test_cfg.score_thr': 0.008, 'test_cfg.max_per_img': 500})
    torch.nn.init.normal_(model.bbox_head.conv_cls.weight, std=0.1)
    usual = compared(model)
    for part in (model, model.bbox_head):
        part.test_cfg = dict(part.test_cfg, nms=nms and {**part.test_cfg['nms'], **nms})
    result = compared(model)
    assert result.agreeing == result.total > 0, str(result)
    assert result.total != usual.total


def test_soft_nms_is_refused() -> None:
    with pytest.raises(InputError, match=r'nms\.type of .* is soft_nms, which ONNX lacks: export with --cfg-options'):
        describe(small_model(changes={'test_cfg.nms.type': 'soft_nms'}), Config())


def test_no_detections(model: CenterMask, compared: Any) -> None:
    torch.nn.init.constant_(model.bbox_head.conv_cls.bias, -100)
    for padded in (False, True):
        assert compared(model, False, padded).total == 0


def test_empty_boxes(compared: Any) -> None:
    model = small_model('star', {'test_cfg.score_thr': 0.008, 'test_cfg.max_per_img': 20})
    torch.nn.init.normal_(model.bbox_head.conv_reg.weight, std=0.3)
    torch.nn.init.constant_(model.bbox_head.conv_reg.bias, -4)
    images, samples = batch(model, IMAGES[:1], [sample(*SIZES[0])])
    (raw,) = model.bbox_head.predict(model.extract_feat(images), samples)
    empty = (raw.bboxes[:, 2:] <= raw.bboxes[:, :2]).any(1)
    assert empty.any() and not empty.all()
    for padded in (False, True):
        (found,) = GraphModel(model, padded=padded)(images.numpy(), np.array(SIZES[:1]))
        assert len(found.boxes) <= int((~empty).sum())
        result = compared(model, False, padded)
        assert result.agreeing == result.total > 0


def test_fixed_number_of_detections(model: CenterMask) -> None:
    images, _ = batch(model, IMAGES, [sample(*size) for size in SIZES])
    outputs = GraphModel(model, padded=True).run(images.numpy(), np.array(SIZES))
    assert [outputs[name].shape for name in OUTPUTS] == [(3, 20, 4), (3, 20), (3, 20), (3, 20), (3, 20, 28, 28)]
    missing = outputs['labels'] < 0
    assert (outputs['scores'][missing] == 0).all() and (outputs['scores'][~missing] > 0).all()


def test_preprocessing(model: CenterMask) -> None:
    """Pixels outside an image are padding."""
    expected, _ = batch(model, IMAGES, [sample(*size) for size in SIZES])
    pixels = torch.full((3, 130, 128, 3), 77, dtype=torch.uint8)
    for image, target in zip(IMAGES, pixels, strict=True):
        target[: image.shape[1], : image.shape[2]] = image.permute(1, 2, 0)
    preprocessor = model.data_preprocessor
    network, sizes = Preprocessing(preprocessor.mean, preprocessor.std, 32)(pixels, torch.tensor(SIZES))
    assert torch.equal(network, expected) and sizes.tolist() == [list(size) for size in SIZES]
