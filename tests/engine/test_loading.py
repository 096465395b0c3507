"""Detectors in one line of Python."""

import dataclasses
from pathlib import Path

import cv2
import pytest
import torch
from helpers.released_files import filled, lite_star
from helpers.weights_server import serve_weights
from mmdet.apis import inference_detector, init_detector
from mmdet.structures import DetDataSample

import centermask
from centermask.checkpoints.sources import MIRROR
from centermask.engine import loading
from centermask.engine.model_names import find_config
from centermask.export.metadata import Metadata
from centermask.utils.errors import InputError

NAME = 'centermask-lite-star_v2-19-slim'
METADATA = Metadata(
    recipe='star',
    version='0.2.0',
    classes=['circle', 'square'],
    mean=[0.0] * 3,
    std=[1.0] * 3,
    divisor=32,
    scale=[320, 256],
    resize='centermask.Resize',
    preprocess=False,
    full_masks=False,
    detections=0,
    pasting='resized',
    mask_threshold=0.5,
)


@pytest.fixture
def image(tiny_config: Path) -> Path:
    return tiny_config.parent / 'shapes/val/images/000000.jpg'


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkpoint in a mirror, of a model that finds boxes of some size."""
    weights = filled(lite_star())
    weights['proposal_generator.fcos_head.bbox_pred.bias'].fill_(3)
    path = tmp_path / 'centermask-lite-V-19-eSE-slim-FPN-ms-4x.pth'
    torch.save({'model': weights}, path)
    monkeypatch.setenv(MIRROR, str(tmp_path))
    return path


def _same(results: list[DetDataSample], others: list[DetDataSample]) -> bool:
    pairs = zip(results, others, strict=True)
    return all(
        len(a.pred_instances)
        and all(torch.equal(a.pred_instances[key], b.pred_instances[key]) for key in ('bboxes', 'masks'))
        for a, b in pairs
    )


def test_by_name(released: Path, image: Path) -> None:
    """It finds what MMDetection's functions find, with the masks that these give."""
    results = centermask.load(NAME, device='cpu').predict(image)
    model = init_detector(find_config(NAME), str(released), device='cpu')
    assert _same(results, [inference_detector(model, str(image))])
    assert results[0].pred_instances.masks.dtype == torch.bool


def test_own_files(tiny_config: Path, tiny_run: Path, image: Path) -> None:
    """Files, arrays and batches of both; a checkpoint alone has its config beside it."""
    model, array = centermask.load(tiny_config, tiny_run / 'iter_2.pth', 'cpu'), cv2.imread(str(image))
    results = model.predict([image, str(image), array])
    for one in (image, str(image), array):
        assert _same(model.predict(one), [results[0]]) and _same(results, 3 * model.predict(one))
    batch = model.predict([array, image], batch_size=2)
    torch.testing.assert_close(batch[0].pred_instances.bboxes, batch[1].pred_instances.bboxes)
    assert len(model.predict(image.parent)) == 3
    assert _same(centermask.load(tiny_run / 'iter_2.pth', device='cpu').predict(image), results[:1])


def test_images_that_cannot_be_used(
    tiny_run: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence names the file, before the model runs."""
    model = centermask.load(tiny_run / 'iter_2.pth', device='cpu')
    monkeypatch.setattr(model, 'forward', None)
    broken, empty = tmp_path / 'broken.jpg', tmp_path / 'empty'
    broken.write_bytes(image.read_bytes()[:2000])
    empty.mkdir()
    for images, sentence in (
        (broken, f'The image {broken} could not be read, it is damaged or not an image: remove it.'),
        ([image, str(broken)], f'The image {broken} could not be read, it is damaged or not an image: remove it.'),
        (
            [cv2.imread(str(image)), 'no.jpg'],
            "The image no.jpg is no file or doesn't exist: remove it from the images.",
        ),
        ('', 'The name of the image is empty: '),
        ('no.jpg', "The image or folder no.jpg doesn't exist: give the path of one."),
        (empty, f'The folder {empty} holds no image: their names would end in '),
    ):
        with pytest.raises(InputError) as error:
            model.predict(images)
        assert str(error.value).startswith(sentence)
    with pytest.raises(InputError, match='more than the 9 that --max-pixels'):
        model.predict(image, max_pixels=9)


def test_addresses_without_an_image(tiny_run: Path) -> None:
    model = centermask.load(tiny_run / 'iter_2.pth', device='cpu')
    with serve_weights() as server:
        server.files['/page.jpg'] = b'<html>'
        for address in (f'{server.address}/page.jpg', f'{server.address}/no.jpg', 'http://127.0.0.1:9/x.jpg'):
            with pytest.raises(InputError, match=rf'^No image comes from {address} \(.*\): check the address\.$'):
                model.predict(address)


def test_no_config_beside(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^The checkpoint .*a\.pth doesn't exist: give the path of one\.$"):
        centermask.load(tmp_path / 'a.pth')
    (tmp_path / 'a.pth').touch()
    with pytest.raises(InputError, match=r'^There are 0 configs beside .*a\.pth: give its config too, before it\.$'):
        centermask.load(tmp_path / 'a.pth')


def test_no_such_device() -> None:
    with pytest.raises(InputError, match=r'^The device xyz is not on this machine'):
        centermask.load(NAME, device='xyz')


def test_without_released_weights() -> None:
    with pytest.raises(InputError, match=r'^No weights of centermask_hrnetv2-w18_fpn_1x_coco were released: give a'):
        centermask.load('centermask_hrnetv2-w18')


@pytest.mark.parametrize(
    ('changes', 'step'),
    [
        ({}, {}),
        ({'recipe': 'paper', 'resize': 'centermask.Resize down'}, {'rounding': 'down'}),
    ],
)
def test_config_of_an_exported_file(changes: dict, step: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = dataclasses.replace(METADATA, **changes)
    monkeypatch.setattr(loading, 'ExportedModel', lambda path: type('File', (), {'metadata': metadata}))
    data = loading.config_of_exported('a.onnx').test_dataloader.dataset
    assert data.pipeline[1] == dict(type='Resize', _scope_='centermask', scale=[320, 256], keep_ratio=True, **step)
    assert data.metainfo.classes == ['circle', 'square']


def test_exported_with_other_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = dataclasses.replace(METADATA, resize='Resize')
    monkeypatch.setattr(loading, 'ExportedModel', lambda path: type('File', (), {'metadata': metadata}))
    with pytest.raises(
        InputError, match=r'^a\.onnx was exported with images resized by Resize: give its config too\.$'
    ):
        loading.config_of_exported('a.onnx')
