"""MMEngine's own loader on CenterMask: released layouts are renamed, hostile files refused, names and links known."""

import os
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from helpers.release_layout import to_release
from helpers.released_files import filled, lite_star
from helpers.small_model import small_model
from helpers.weights_server import WeightsServer, serve_weights
from mmdet.apis import DetInferencer, init_detector
from mmdet.datasets import CocoDataset
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from centermask.checkpoints import released_layouts
from centermask.checkpoints.loading import read_checkpoint
from centermask.checkpoints.metafile import released_models
from centermask.checkpoints.sources import MIRROR
from centermask.engine.model_names import find_config


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('recipe', ['star', 'paper', 'panoptic'])
def test_released_files(recipe: str, prefix: str, tmp_path: Path) -> None:
    source = small_model(recipe)
    weights = {prefix + name: tensor + 1 for name, tensor in to_release(source.state_dict(), recipe).items()}
    torch.save({'model': weights, 'optimizer': {'state': {}}, 'iteration': 3}, tmp_path / 'a.pth')
    model = small_model(recipe)
    load_checkpoint(model, str(tmp_path / 'a.pth'), strict=True)
    for name, tensor in model.state_dict().items():
        assert name.endswith('num_batches_tracked') or torch.equal(tensor, source.state_dict()[name] + 1), name


def test_instance_branch_of_a_panoptic_file(tmp_path: Path) -> None:
    """A CenterMask takes it, and leaves out the semantic head and level P2."""
    source = small_model('panoptic').state_dict()
    torch.save({'model': to_release(source, 'panoptic')}, tmp_path / 'a.pth')
    model = small_model('star')
    load_checkpoint(model, str(tmp_path / 'a.pth'), strict=True)
    for name, tensor in model.state_dict().items():
        level = int(name.split('.')[2]) + 1 if name.startswith('neck.') else None
        name = name if level is None else name.replace(f'.{level - 1}.', f'.{level}.', 1)
        assert name.endswith('num_batches_tracked') or torch.equal(tensor, source[name]), name


def test_mmdetection_layout_is_not_translated(tmp_path: Path) -> None:
    """Released names in a file of MMDetection's layout are unexpected keys."""
    weights = {**small_model().state_dict(), 'backbone.fpn_lateral3.bias': torch.zeros(1)}
    torch.save({'state_dict': weights}, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match=r'unexpected key in source state_dict: backbone\.fpn_lateral3\.bias'):
        load_checkpoint(small_model(), str(tmp_path / 'a.pth'), strict=True)


class _Call:
    """Pickled as a call of a function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_hostile_files(tmp_path: Path) -> None:
    """MMEngine's loader raises and runs nothing."""
    torch.save({'model': {'w': torch.zeros(1), 'x': _Call(tmp_path / 'mark')}}, tmp_path / 'a.pth')
    with pytest.raises(UnpicklingError):
        load_checkpoint(small_model(), str(tmp_path / 'a.pth'))
    assert not (tmp_path / 'mark').exists()


# By name and by link

NAME, FILE = 'centermask-lite-star_v2-19-slim', 'centermask-lite-V-19-eSE-slim-FPN-ms-4x.pth'


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    """A mirror of one released model."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    torch.save({'model': filled(lite_star())}, tmp_path / FILE)
    with serve_weights() as running:
        running.files[f'/{FILE}'] = (tmp_path / FILE).read_bytes()
        monkeypatch.setenv(MIRROR, running.address)
        yield running


@pytest.fixture
def expected(tmp_path: Path, server: WeightsServer) -> dict[str, torch.Tensor]:
    return read_checkpoint(str(tmp_path / FILE))['state_dict']


@pytest.mark.parametrize('name', [NAME, f'{NAME}_fpn_4x_coco'])
def test_det_inferencer(name: str, server: WeightsServer, expected: dict) -> None:
    inferencer = DetInferencer(name, scope='centermask', device='cpu', show_progress=False)
    weights = inferencer.model.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    assert server.asked == [f'/{FILE}']
    image = np.zeros((100, 120, 3), np.uint8)
    assert 'bboxes' in inferencer(image)['predictions'][0]
    assert inferencer.model.dataset_meta['classes'] == CocoDataset.METAINFO['classes']


def test_init_detector_with_a_link(server: WeightsServer, expected: dict) -> None:
    model = init_detector(find_config(NAME), released_models()[find_config(NAME).stem].link, device='cpu')
    weights = model.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    assert server.asked == [f'/{FILE}']


def test_other_files_of_these_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are MMEngine's affair."""
    monkeypatch.setattr(released_layouts, 'load_from_http', lambda *args: args)
    loaded = CheckpointLoader.load_checkpoint('https://dl.dropbox.com/s/abc/other.pth', 'cpu')
    assert loaded == ('https://dl.dropbox.com/s/abc/other.pth', 'cpu')


def test_every_link_is_known() -> None:
    for release in released_models().values():
        assert CheckpointLoader._get_checkpoint_loader(release.link) is released_layouts.load_from_release
