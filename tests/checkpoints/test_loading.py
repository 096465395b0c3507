"""Reading checkpoints and loading them into models."""

from pathlib import Path

import pytest
import torch
from helpers.small_model import small_model
from torch import nn

from centermask.checkpoints.loading import (
    check_match,
    class_counts,
    count_classes,
    load_pretrained,
    load_weights,
    read_checkpoint,
)
from centermask.utils.errors import InputError


class Net(nn.Module):
    """A backbone and two layers of classes, one of them with background."""

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


def test_names_the_first_mismatch() -> None:
    weights = Net(4).state_dict()
    weights['backbone.0.weight'] = torch.zeros(7, 3, 3, 3)
    del weights['masks.bias']
    weights['extra'] = torch.zeros(2)
    mismatches = load_weights(Net(4), weights)
    assert [str(mismatch) for mismatch in mismatches] == [
        'backbone.0.weight is (7, 3, 3, 3) in the file and (8, 3, 3, 3) in the model',
        'masks.bias is absent in the file and (5,) in the model',
        'extra is (2,) in the file and absent in the model',
    ]
    with pytest.raises(InputError) as error:
        check_match(mismatches, 'a.pth', Net(4))
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
    mismatches = load_weights(model, Net(80).state_dict())
    assert class_counts(model, mismatches) == (80, 4)
    with pytest.raises(InputError, match=r'it was trained on 80 classes and the config has 4: classes\.weight is'):
        check_match(mismatches, 'a.pth', model)


def test_background_in_one_recipe_only_is_no_other_number_of_classes() -> None:
    star, paper = small_model('star'), small_model('paper')
    for model, other in ((star, paper), (paper, star)):
        mismatches = load_weights(model, other.state_dict())
        assert [mismatch.key for mismatch in mismatches] == [
            f'roi_head.{layer}.{kind}'
            for layer in ('mask_head.conv_logits', 'mask_iou_head.fc_mask_iou')
            for kind in ('weight', 'bias')
        ]
        assert class_counts(model, mismatches) is None


def test_training_starts_class_layers_fresh(logged: list[str]) -> None:
    model, old = Net(4), Net(80)
    fresh = model.classes.weight.clone()
    checkpoint = {'state_dict': old.state_dict()}
    load_pretrained(model, checkpoint, 'a.pth')
    assert torch.equal(model.backbone[0].weight, old.backbone[0].weight)
    assert torch.equal(model.classes.weight, fresh)
    assert load_weights(Net(4), checkpoint['state_dict']) == []  # what an EMA hook would load next
    assert logged == ['a.pth was trained on 80 classes and the config has 4: classes, masks start fresh.']


OF_THINGS = ('bbox_head.conv_cls', 'roi_head.mask_head.conv_logits', 'roi_head.mask_iou_head.fc_mask_iou')
OF_STUFF = ('semantic_head.conv_logits',)


@pytest.mark.parametrize(
    ('changes', 'layers'),
    [
        ({'num_classes': 2}, OF_THINGS),
        ({'semantic_head.num_stuff_classes': 5}, OF_STUFF),
        ({'num_classes': 2, 'semantic_head.num_stuff_classes': 5}, OF_THINGS + OF_STUFF),
    ],
)
def test_other_classes_of_things_and_of_stuff(logged: list[str], changes: dict, layers: tuple[str, ...]) -> None:
    model = small_model('panoptic', changes)
    assert count_classes(model) == changes.get('num_classes', 3)
    mismatches = load_weights(model, small_model('panoptic').state_dict())
    assert class_counts(model, mismatches) == ((3, 2) if 'num_classes' in changes else None)
    load_pretrained(model, {'state_dict': small_model('panoptic').state_dict()}, 'a.pth')
    classes = '3 classes and the config has 2' if 'num_classes' in changes else 'another number of stuff classes'
    assert logged == [f'a.pth was trained on {classes}: {", ".join(layers)} start fresh.']


def test_semantic_head_of_another_width() -> None:
    model = small_model('panoptic', {'semantic_head': dict(inner_channels=64)})
    with pytest.raises(InputError, match='it belongs to another model: semantic_head'):
        load_pretrained(model, {'state_dict': small_model('panoptic').state_dict()}, 'a.pth')


class Anchors(nn.Module):
    """Layers like those of Mask R-CNN and YOLACT: anchors × (classes + background), four box sides a class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.num_classes = classes
        self.classes = nn.Conv2d(8, 3 * (classes + 1), 1)
        self.boxes = nn.Linear(8, 4 * classes)


@pytest.mark.parametrize('classes', [(80, 3), (1, 80), (2, 4)])
def test_several_outputs_for_each_class(classes: tuple[int, int]) -> None:
    model = Anchors(classes[1])
    assert class_counts(model, load_weights(model, Anchors(classes[0]).state_dict())) == classes


def test_training_accepts_no_other_mismatch() -> None:
    with pytest.raises(InputError, match=r'backbone\.0\.weight is \(16, 3, 3, 3\) in the file and \(8, 3, 3, 3\)'):
        load_pretrained(Net(4), {'state_dict': Net(4, width=16).state_dict()}, 'a.pth')
    both = Net(80, width=16).state_dict()
    with pytest.raises(InputError, match='it belongs to another model'):
        load_pretrained(Net(4), {'state_dict': both}, 'a.pth')
    absent = Net(80).state_dict()
    del absent['masks.bias']
    with pytest.raises(InputError, match='it belongs to another model: '):
        load_pretrained(Net(4), {'state_dict': absent}, 'a.pth')
