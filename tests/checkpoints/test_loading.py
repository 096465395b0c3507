"""Reading checkpoints and fitting them to models."""

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from helpers.read_configs import read_config
from helpers.small_model import small_model
from mmdet.registry import MODELS
from torch import nn

from centermask.checkpoints.loading import class_counts, load_weights, read_checkpoint, require_fit, start_from
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


class Net(nn.Module):
    """A part that doesn't depend on the number of classes and two that do, one of which counts background."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.num_classes = classes
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
        self.classes = nn.Conv2d(width, classes, 1)
        self.masks = nn.Linear(width, classes + 1)


@pytest.mark.parametrize('wrap', [lambda w: w, lambda w: {'state_dict': w, 'meta': {}}, lambda w: {'model': w}])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_layouts(wrap, prefix: str, tmp_path: Path) -> None:
    weights = Net(4).state_dict()
    torch.save(wrap({prefix + key: value for key, value in weights.items()}), tmp_path / 'a.pth')
    checkpoint = read_checkpoint(str(tmp_path / 'a.pth'))
    assert list(checkpoint['state_dict']) == list(weights)
    assert load_weights(Net(4), checkpoint['state_dict']) == []


class _Blocked:
    """Pickled as a call of a function from a module that torch never admits."""

    def __reduce__(self) -> tuple:
        return os.getcwd, ()


def _write(path: Path, content: str) -> None:
    others = {'class': {'b': Namespace()}, 'blocked': {'b': _Blocked()}}.get(content, {})
    torch.save({'a': torch.zeros(1000), **others}, path)
    if content == 'truncated':
        path.write_bytes(path.read_bytes()[:2000])
    elif content == 'empty':
        path.write_bytes(b'')
    elif content == 'text':
        path.write_text('<html>Sign in to download</html>')
    elif content == 'numbers':
        torch.save({'a': 1}, path)
    elif content == 'tensor':
        torch.save(torch.zeros(3), path)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('truncated', 'is truncated or no checkpoint at all'),
        ('empty', 'is truncated or no checkpoint at all'),
        ('text', 'is truncated or no checkpoint at all'),
        ('class', 'holds a argparse.Namespace, which no checkpoint needs'),
        ('blocked', 'holds a posix.getcwd, which no checkpoint needs'),
        ('numbers', 'holds no weights'),
        ('tensor', 'holds no weights'),
    ],
)
def test_bad_files(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    _write(path, content)
    with pytest.raises(InputError) as error:
        read_checkpoint(str(path))
    assert str(error.value) == f'The checkpoint {path} {words}: give the path of a checkpoint.'


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.pth doesn't exist: give the path"):
        read_checkpoint(str(tmp_path / 'a.pth'))
    with pytest.raises(InputError, match='is a folder'):
        read_checkpoint(str(tmp_path))


def test_no_network() -> None:
    with pytest.raises(InputError, match=r"The checkpoint http://127\.0\.0\.1:9/a\.pth can't be fetched \(.+\): name"):
        read_checkpoint('http://127.0.0.1:9/a.pth', remedy='name another.')


def test_names_the_first_misfit() -> None:
    weights = Net(4).state_dict()
    weights['backbone.0.weight'] = torch.zeros(7, 3, 3, 3)
    del weights['masks.bias']
    weights['extra'] = torch.zeros(2)
    misfits = load_weights(Net(4), weights)
    assert [str(misfit) for misfit in misfits] == [
        'backbone.0.weight is (7, 3, 3, 3) in the file and (8, 3, 3, 3) in the model',
        'masks.bias is absent in the file and (5,) in the model',
        'extra is (2,) in the file and absent in the model',
    ]
    with pytest.raises(InputError) as error:
        require_fit(misfits, 'a.pth', Net(4))
    assert str(error.value) == (
        "The checkpoint a.pth doesn't fit the config's model, it belongs to another model: backbone.0.weight is "
        '(7, 3, 3, 3) in the file and (8, 3, 3, 3) in the model (3 tensors differ); '
        'give the config that it was trained with.'
    )


def test_old_files_without_batch_counters() -> None:
    weights = {key: value for key, value in Net(4).state_dict().items() if 'num_batches' not in key}
    assert load_weights(Net(4), weights) == []


def test_another_number_of_classes() -> None:
    model = Net(4)
    misfits = load_weights(model, Net(80).state_dict())
    assert class_counts(model, misfits) == (80, 4)
    with pytest.raises(InputError, match=r'it was trained on 80 classes and the config has 4: classes\.weight is'):
        require_fit(misfits, 'a.pth', model)


def test_background_in_one_recipe_only_is_no_other_number_of_classes() -> None:
    star, paper = small_model('star'), small_model('paper')
    for model, other in ((star, paper), (paper, star)):
        misfits = load_weights(model, other.state_dict())
        assert [misfit.key for misfit in misfits] == [
            f'roi_head.{layer}.{kind}'
            for layer in ('mask_head.conv_logits', 'mask_iou_head.fc_mask_iou')
            for kind in ('weight', 'bias')
        ]
        assert class_counts(model, misfits) is None


def test_training_starts_class_layers_fresh(logged: list[str]) -> None:
    model, old = Net(4), Net(80)
    fresh = model.classes.weight.clone()
    checkpoint = {'state_dict': old.state_dict()}
    start_from(model, checkpoint, 'a.pth')
    assert torch.equal(model.backbone[0].weight, old.backbone[0].weight)
    assert torch.equal(model.classes.weight, fresh)
    assert load_weights(Net(4), checkpoint['state_dict']) == []  # what an EMA hook would load next
    assert logged == ['a.pth was trained on 80 classes and the config has 4: classes, masks start fresh.']


class Anchors(nn.Module):
    """As the baselines' heads: anchors times classes and background, and four box sides of each class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.num_classes = classes
        self.classes = nn.Conv2d(8, 3 * (classes + 1), 1)
        self.boxes = nn.Linear(8, 4 * classes)


@pytest.mark.parametrize('classes', [(80, 3), (80, 1), (1, 80), (20, 80), (2, 4)])
def test_several_outputs_for_each_class(classes: tuple[int, int]) -> None:
    model = Anchors(classes[1])
    assert class_counts(model, load_weights(model, Anchors(classes[0]).state_dict())) == classes


@pytest.mark.parametrize('name', ['mask-rcnn_r101_fpn_2x_coco', 'retinamask_r101_fpn_2x_coco', 'yolact-550_r50_coco'])
def test_baselines_start_on_other_classes(name: str) -> None:
    def model(classes: int) -> nn.Module:
        config = read_config(name).model
        pending = [config]
        while pending:
            for key, value in (part := pending.pop()).items():
                if key == 'num_classes' and part.type != 'RPNHead':
                    part[key] = classes
                pending += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, dict)]
        with torch.device('meta'):
            return MODELS.build(config)

    here = model(7)
    assert class_counts(here, load_weights(here, model(80).state_dict())) == (80, 7)


def test_training_accepts_no_other_misfit() -> None:
    with pytest.raises(InputError, match=r'backbone\.0\.weight is \(16, 3, 3, 3\) in the file and \(8, 3, 3, 3\)'):
        start_from(Net(4), {'state_dict': Net(4, width=16).state_dict()}, 'a.pth')
    both = Net(80, width=16).state_dict()
    with pytest.raises(InputError, match='it belongs to another model'):
        start_from(Net(4), {'state_dict': both}, 'a.pth')
    absent = Net(80).state_dict()
    del absent['masks.bias']
    with pytest.raises(InputError, match='it belongs to another model: '):
        start_from(Net(4), {'state_dict': absent}, 'a.pth')
