"""MMEngine's own loader on CenterMask: released layouts are renamed, hostile files refused."""

import os
from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch
from helpers.small_model import small_model
from mmengine.runner import load_checkpoint

from centermask.checkpoints.layouts import to_release


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
