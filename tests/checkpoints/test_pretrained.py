"""``init_cfg=dict(type='StrictPretrained')`` of this project's backbones and of MMDetection's."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from centermask import VoVNet
from centermask.utils.errors import InputError

RESNET = dict(type='ResNet', depth=18, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
VOVNET = dict(type='VoVNet', arch='19-slim')
MOBILENET = dict(type='MobileNetV2')  # its modules have initialisers of their own


def _build(config: dict, checkpoint: Path | str) -> nn.Module:
    return MODELS.build({**config, 'init_cfg': dict(type='StrictPretrained', checkpoint=str(checkpoint))})


@pytest.mark.parametrize('config', [RESNET, VOVNET, MOBILENET], ids=lambda config: config['type'])
def test_loads(config: dict, tmp_path: Path, logged: list[str]) -> None:
    source = MODELS.build(config)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)  # unlike any initialiser's
    torch.save({**source.state_dict(), 'fc.weight': torch.zeros(3)}, tmp_path / 'a.pth')
    backbone = _build(config, tmp_path / 'a.pth')
    backbone.init_weights()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in backbone.state_dict().items())
    assert f'{len(source.state_dict())} tensors loaded, not used: fc.weight' in logged[-1]


@pytest.mark.parametrize('prefix', [dict(prefix='backbone'), {}], ids=['named', 'found'])
def test_loads_a_part_of_a_detector(prefix: dict, tmp_path: Path) -> None:
    source = MODELS.build(RESNET)
    source.init_weights()
    weights = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    torch.save({'state_dict': {**weights, 'neck.weight': torch.zeros(1)}}, tmp_path / 'a.pth')
    init_cfg = dict(type='StrictPretrained', checkpoint=str(tmp_path / 'a.pth'), **prefix)
    backbone = MODELS.build({**RESNET, 'init_cfg': init_cfg})
    backbone.init_weights()
    assert torch.equal(backbone.conv1.weight, source.conv1.weight)


@pytest.mark.parametrize('config', [RESNET, VOVNET], ids=['ResNet', 'VoVNet'])
def test_nothing_fits(config: dict, tmp_path: Path) -> None:
    torch.save({'features.0.weight': torch.zeros(64, 3, 3, 3), 'conv1.weight': torch.zeros(1)}, tmp_path / 'a.pth')
    with pytest.raises(InputError) as error:
        _build(config, tmp_path / 'a.pth').init_weights()
    assert str(error.value).startswith(f"Nothing of {tmp_path / 'a.pth'} fits the config's {config['type']} (first, ")
    assert str(error.value).endswith('name a local file by --cfg-options model.backbone.init_cfg.checkpoint=FILE.')


def test_part_fits(tmp_path: Path, logged: list[str]) -> None:
    weights = VoVNet(arch='19-slim').state_dict()
    lost = [key for key in weights if key.startswith('stages.3')]
    torch.save({key: value for key, value in weights.items() if key not in lost}, tmp_path / 'a.pth')
    _build(VOVNET, tmp_path / 'a.pth').init_weights()
    counted = [key for key in lost if 'num_batches' not in key]
    assert f'{len(counted)} tensors of VoVNet are not in {tmp_path / "a.pth"}' in logged[-1]


@pytest.mark.parametrize('attention, fresh', [('none', 0), ('se', 16)])
def test_table4_starts_from_v2(attention: str, fresh: int, tmp_path: Path, logged: list[str]) -> None:
    """V1 and its variants take V2's weights except the attention (4 modules, 4 tensors an SE), which is logged."""
    source = VoVNet(arch='19-slim').state_dict()
    torch.save(source, tmp_path / 'a.pth')
    backbone = _build({**VOVNET, 'attention': attention}, tmp_path / 'a.pth')
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        assert '.attention.' in key or torch.equal(value, source[key])
    log = '\n'.join(logged)
    assert 'not used: stages.0.blocks.0.attention.fc.weight, stages.0.blocks.0.attention.fc.bias' in log
    assert (f'{fresh} tensors of VoVNet are not in {tmp_path / "a.pth"} in their shape and start fresh' in log) is (
        fresh > 0
    )


@pytest.mark.parametrize('checkpoint', ['http://127.0.0.1:9/vovnet39.pth', 'missing.pth'])
def test_unavailable_files(checkpoint: str) -> None:
    with pytest.raises(InputError) as error:
        _build(VOVNET, checkpoint).init_weights()
    assert str(error.value).startswith(f'The checkpoint {checkpoint} ')
    assert str(error.value).endswith('name a local file by --cfg-options model.backbone.init_cfg.checkpoint=FILE.')
