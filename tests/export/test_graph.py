"""The graph that is exported, run by torch: it finds what the model finds, in every recipe and with every option."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.small_model import small_model

from centermask import CenterMask
from centermask.export.compare import compare
from centermask.export.graph import OUTPUTS, ExportGraph, Preprocessing
from centermask.export.pictures import Batch, make_batch
from centermask.export.runtime import Detections, ExportedModel


class Traced(ExportedModel):
    """The graph in the place of a file."""

    def __init__(self, model: CenterMask, full_masks: bool = False, padded: bool = False) -> None:
        graph = ExportGraph(model, full_masks, padded)
        names = OUTPUTS if padded else (*OUTPUTS, 'image_index')

        def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            outputs = graph(torch.from_numpy(inputs['images']), torch.from_numpy(inputs['sizes']))
            return dict(zip(names, (output.numpy() for output in outputs), strict=True))

        self._run = run
        self._labels = range(model.bbox_head.num_classes)
        self.metadata = SimpleNamespace(
            detections=20 if padded else 0,
            full_masks=full_masks,
            preprocess=False,
            pasting=model.roi_head.pasting,
            mask_threshold=0.5,
        )


def batches(model: CenterMask) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        for size in ((96, 128), (130, 64), (70, 90))
    ]
    return [make_batch(model, [image]) for image in images] + [make_batch(model, images)]


@pytest.fixture(params=['star', 'paper'])
def model(request: pytest.FixtureRequest) -> CenterMask:
    """Many detections, some boxes without area, without a class that has all."""
    model = small_model(request.param, {'test_cfg.score_thr': 0.008, 'test_cfg.max_per_img': 20})
    torch.nn.init.normal_(model.bbox_head.conv_reg.weight, std=0.3)
    torch.nn.init.normal_(model.bbox_head.conv_cls.weight, std=0.1)
    return model


@pytest.mark.parametrize('padded', [False, True])
@pytest.mark.parametrize('full_masks', [False, True])
def test_finds_what_the_model_finds(model: CenterMask, full_masks: bool, padded: bool) -> None:
    result = compare(model, Traced(model, full_masks, padded), batches(model))
    assert result.wrong == [], str(result)
    assert result.matched > 60 and result.allowed == []


def test_finds_nothing(model: CenterMask) -> None:
    torch.nn.init.constant_(model.bbox_head.conv_cls.bias, -100)
    for padded in (False, True):
        result = compare(model, Traced(model, padded=padded), batches(model))
        assert (result.matched, result.wrong) == (0, [])


def test_boxes_without_area() -> None:
    model = small_model('star', {'test_cfg.score_thr': 0.008, 'test_cfg.max_per_img': 20})
    torch.nn.init.normal_(model.bbox_head.conv_reg.weight, std=0.3)
    torch.nn.init.constant_(model.bbox_head.conv_reg.bias, -4)
    batch = batches(model)[0]
    (raw,) = model.bbox_head.predict_by_feat(
        *model.bbox_head(model.extract_feat(batch.network)), [dict(img_shape=(96, 128))]
    )
    empty = (raw.bboxes[:, 2:] <= raw.bboxes[:, :2]).any(1)
    assert empty.any() and not empty.all()
    for padded in (False, True):
        (found,) = Traced(model, padded=padded)(**batch.inputs(False))
        assert len(found.boxes) <= int((~empty).sum())
        assert compare(model, Traced(model, padded=padded), batches(model)).wrong == []


def test_fixed_number(model: CenterMask) -> None:
    outputs = Traced(model, padded=True).run(**batches(model)[-1].inputs(False))
    shapes = {name: values.shape for name, values in outputs.items()}
    expected = Detections((3, 20, 4), (3, 20), (3, 20), (3, 20), (3, 20, 28, 28))  # type: ignore[arg-type]
    assert shapes == expected._asdict()


def test_preprocessing(model: CenterMask) -> None:
    """Of images of several sizes; what lies outside an image doesn't matter."""
    batch = batches(model)[-1]
    preprocessor = model.data_preprocessor
    pixels = torch.from_numpy(batch.pixels)[:, :130, :].clone()
    pixels[0, 96:] = 77
    network, sizes = Preprocessing(preprocessor.mean, preprocessor.std, 32)(pixels, torch.from_numpy(batch.sizes))
    assert torch.equal(network, batch.network) and np.array_equal(sizes, batch.sizes)
