"""tools/convert_checkpoint.py: its output is used by the other commands; a wrong input leaves no file."""

import pickle
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers import released_files as released
from mmdet.apis import init_detector
from mmdet.registry import MODELS
from mmengine.config import Config

from centermask.engine.cli import run

REPOSITORY = Path(__file__).resolve().parents[2]


class Result(NamedTuple):
    """The outcome of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def convert(tools: Callable, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in the repository."""
    monkeypatch.chdir(REPOSITORY)

    def command(*words: object) -> Result:
        capfd.readouterr()
        code = run(lambda: tools('convert_checkpoint')([str(word) for word in words]))
        return Result(code, *capfd.readouterr())

    return command


def test_a_model(convert: Callable[..., Result], tmp_path: Path) -> None:
    weights = released.filled(released.lite_star())
    torch.save({'model': weights, '__author__': 'me'}, tmp_path / 'a.pth')
    result = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    config = 'configs/centermask-lite-star_v2-19-slim_fpn_4x_coco.py'
    assert result.out.splitlines() == [
        'layout     star',
        f'config     {config}',
        'converted  165 tensors',
        'not used   pixel_mean, pixel_std, __author__',
        f'wrote {tmp_path / "b.pth"}, use it by',
        f'python tools/test.py {config} {tmp_path / "b.pth"}',
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pth', 'b.pth']
    detector = init_detector(REPOSITORY / config, str(tmp_path / 'b.pth'), device='cpu')
    assert detector.dataset_meta['classes'][2] == 'car'
    name = 'proposal_generator.fcos_head.cls_logits.weight'
    assert torch.equal(detector.bbox_head.conv_cls.weight, weights[name])


def test_a_model_of_other_classes(convert: Callable[..., Result], tmp_path: Path) -> None:
    torch.save({'model': released.empty(released.lite_star(5))}, tmp_path / 'a.pth')
    *_, command = convert(tmp_path / 'a.pth', tmp_path / 'b.pth').out.splitlines()
    options = '--cfg-options model.num_classes=5 test_dataloader.dataset.metainfo.classes=NAMES'
    assert command.endswith(f'{tmp_path / "b.pth"} {options}')


BACKBONES = {
    'VoVNet': ('a.pth', '', released.with_prefix('module.', released.vovnet('19-slim'))),
    'Caffe2': ('a.pkl', 'blobs', released.resnet_caffe2(50)),
    'timm': ('pytorch_model.bin', '', released.timm_vovnet('39')),
}


@pytest.mark.parametrize('layout', BACKBONES)
def test_backbones(layout: str, convert: Callable[..., Result], tmp_path: Path) -> None:
    """``StrictPretrained`` loads the original and the converted file alike."""
    name, entry, shapes = BACKBONES[layout]
    source, destination = tmp_path / name, tmp_path / 'my own.pth'
    weights = released.filled(shapes)
    if source.suffix == '.pkl':
        source.write_bytes(pickle.dumps({entry: {key: tensor.numpy() for key, tensor in weights.items()}}, 2))
    else:
        torch.save({entry: weights} if entry else weights, source)
    words = shlex.split(convert(source, destination).out.splitlines()[-1])
    assert words[:2] == ['python', 'tools/train.py']
    assert words[3:] == ['--cfg-options', f'model.backbone.init_cfg.checkpoint={destination}']
    converted = torch.load(destination)['state_dict']
    config = Config.fromfile(words[2]).model.backbone
    for checkpoint in (source, destination):
        backbone = MODELS.build({**config, 'init_cfg': dict(type='StrictPretrained', checkpoint=str(checkpoint))})
        backbone.init_weights()
        for key, tensor in backbone.state_dict().items():
            assert key.endswith('num_batches_tracked') or torch.equal(tensor, converted[key]), key


def test_refusals(convert: Callable[..., Result], tiny_run: Path, tmp_path: Path) -> None:
    torch.save({'model': {'w': torch.ones(1)}}, tmp_path / 'other.pth')
    shapes = released.lite_star()
    del shapes['proposal_generator.fcos_head.scales.0.scale']
    torch.save({'model': released.empty(shapes)}, tmp_path / 'a.pth')
    before = sorted(tmp_path.iterdir())
    for source, destination, sentence in [
        (tmp_path / 'none.pth', tmp_path / 'x.pth', "none.pth doesn't exist"),
        (tmp_path / 'a.pth', tmp_path / 'x.txt', 'end its name in .pth'),
        (tmp_path / 'a.pth', tmp_path / 'a.pth', 'is SRC: give another name'),
        (tmp_path / 'other.pth', tmp_path / 'x.pth', 'has no layout that is known here'),
        (tiny_run / 'iter_2.pth', tmp_path / 'x.pth', 'has the layout of MMDetection already'),
        (tmp_path / 'a.pth', tmp_path / 'x.pth', '(proposal_generator.fcos_head.scales.0.scale is absent in the file'),
    ]:
        result = convert(source, destination)
        assert result.code == 2 and sentence in result.err, result
        assert len(result.err.splitlines()) == 1
        assert sorted(tmp_path.iterdir()) == before
