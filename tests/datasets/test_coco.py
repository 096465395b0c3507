"""COCO data: what trains, what ends a run, and the order of classes."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_utils
import pytest
from helpers.small_coco import PIPELINE, SQUARE, annotation, rle
from PIL import Image
from torch.utils.data import DataLoader

from centermask.datasets import CenterMaskCocoDataset
from centermask.utils.errors import InputError, RunError, one_line


@pytest.mark.parametrize('compressed', [True, False])
def test_object_given_as_rle_trains_like_a_polygon(build, content: dict, compressed: bool) -> None:
    content['annotations'][0]['segmentation'] = rle(compressed)
    gt = build()[0]['data_samples'].gt_instances
    assert gt.labels.tolist() == [0]
    (polygon,) = gt.masks.masks[0]
    drawn = mask_utils.decode(mask_utils.frPyObjects([polygon], 40, 60))[..., 0]
    assert np.array_equal(drawn, mask_utils.decode(mask_utils.frPyObjects(rle(False), 40, 60)))


@pytest.mark.parametrize('segmentation', [rle(True), rle(False), SQUARE, None], ids=['rle', 'plain', 'polygon', 'none'])
def test_crowd_is_ignored(build, content: dict, warnings: list[str], segmentation: object) -> None:
    content['annotations'].append(annotation(103, iscrowd=1, segmentation=segmentation))
    sample = build()[0]['data_samples']
    assert len(sample.gt_instances) == 1
    assert len(sample.ignored_instances) == 1
    assert warnings == []


def test_polygons_are_floats_though_the_file_has_integers(build) -> None:
    """MMDetection scales polygons in place of their type: integers would lose their fractions."""
    masks = build()[0]['data_samples'].gt_instances.masks
    assert masks.masks[0][0].dtype == np.float64
    assert masks.resize((41, 61)).masks[0][0][0] == pytest.approx(10 * 61 / 60)


def test_images_without_objects_are_left_out_of_training_only(build, content: dict) -> None:
    content['annotations'] = [annotation(101), annotation(102, image=2, iscrowd=1)]
    assert len(build()) == 1
    assert len(build(filter_cfg={'filter_empty_gt': False})) == 2
    assert len(build(test_mode=True)) == 2


def test_real_photographs(shared: Path) -> None:
    """Five of the six have objects; one object among them is a crowd."""
    dataset = CenterMaskCocoDataset(
        data_root=str(shared / 'data' / 'coco6'),
        ann_file='instances.json',
        data_prefix={'img': 'images/'},
        filter_cfg={'filter_empty_gt': True},
        pipeline=PIPELINE,
    )
    content = json.loads((shared / 'data' / 'coco6' / 'instances.json').read_text())
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    assert len(samples) == 5
    assert sum(len(sample.gt_instances) for sample in samples) == len(content['annotations']) - 1
    assert sum(len(sample.ignored_instances) for sample in samples) == 1


def test_classes_that_the_config_does_not_name_are_left_out_silently(build, warnings: list[str]) -> None:
    dataset = build(classes=('dog',))
    assert len(dataset) == 1
    assert dataset[0]['data_samples'].gt_instances.labels.tolist() == [0]
    assert warnings == []


def test_class_that_the_data_lacks(build) -> None:
    with pytest.raises(InputError, match=r'annotations\.json has no category bird, only cat, dog'):
        build(classes=('dog', 'bird'))


def test_class_written_without_a_tuple(build) -> None:
    with pytest.raises(ValueError, match=r"the text 'cat': write a tuple of names, \('cat',\)"):
        build(classes='cat')


def test_more_classes_than_colours(build, content: dict) -> None:
    content['categories'] += [{'id': 100 + i, 'name': f'class {i}'} for i in range(90)]
    dataset = build(classes=tuple(category['name'] for category in content['categories']))
    assert dataset.metainfo['palette'] == 'random'


@pytest.mark.parametrize(('bytes_left', 'workers'), [(0, 0), (40, 1)])
def test_unreadable_image_ends_the_run(build, tmp_path: Path, bytes_left: int, workers: int) -> None:
    dataset = build()
    path = tmp_path / 'images' / '2.png'
    path.write_bytes(path.read_bytes()[:bytes_left])
    with pytest.raises(RunError) as caught:
        list(DataLoader(dataset, batch_size=None, num_workers=workers))
    assert one_line(caught.value) == (f'The image {path} could not be read, it is damaged or not an image: remove it.')


def test_image_gone_or_replaced_ends_the_run(build, tmp_path: Path) -> None:
    dataset = build(test_mode=True)
    Image.new('RGB', (30, 20)).save(tmp_path / 'images' / '1.png')
    with pytest.raises(RunError, match=r'1\.png is 30x20 pixels but .*annotations\.json states 60x40'):
        dataset[0]
    (tmp_path / 'images' / '1.png').unlink()
    with pytest.raises(RunError, match=r"1\.png is no file or doesn't exist"):
        dataset[0]


@pytest.mark.parametrize('classes', [('cat', 'dog'), ('dog', 'cat')])
def test_labels_follow_the_config(build, classes: tuple[str, ...]) -> None:
    dataset = build(classes=classes)
    labels = [dataset[i]['data_samples'].gt_instances.labels.item() for i in range(2)]
    assert [classes[label] for label in labels] == ['cat', 'dog']
