"""By which runtimes a file is checked, and on what."""

from pathlib import Path

import pytest
import torch
from helpers.small_model import small_model

from centermask.export import check
from centermask.utils.errors import InputError


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list:
    """What is opened and how many images each comparison has, nothing of which is computed; OpenVINO isn't there."""
    log = []

    def open_(file: Path, runtime: str) -> str:
        if runtime == 'openvino':
            raise InputError("openvino isn't installed")
        return runtime

    monkeypatch.setattr(check, 'ExportedModel', open_)
    monkeypatch.setattr(
        check, 'compare', lambda model, exported, batches: log.append((exported, [len(b.sizes) for b in batches]))
    )
    return log


def test_each_image_and_two_together(opened: list) -> None:
    images = [torch.zeros(3, 64, 64, dtype=torch.uint8)] * 3
    (first, _), (second, why_not) = check.check(small_model('star'), Path('a.onnx'), images)
    assert opened == [('onnxruntime', [1, 1, 1, 2])]
    assert (first, second) == ('onnxruntime', 'openvino') and isinstance(why_not, InputError)


def test_its_own_runtime_must_be_there(opened: list) -> None:
    with pytest.raises(InputError, match="openvino isn't installed"):
        list(check.check(small_model('star'), Path('a.xml'), [torch.zeros(3, 64, 64, dtype=torch.uint8)]))


def test_deformable_convs_are_for_one_runtime(opened: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, 'has_deform_conv', lambda model: True)
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    assert [runtime for runtime, _ in check.check(small_model('star'), Path('a.onnx'), [image])] == ['onnxruntime']
