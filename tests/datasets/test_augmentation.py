"""Images as the recipes prepare them: the pipelines of one config each against rules that are written out here."""

import json
import random
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers.read_configs import read_config
from helpers.small_model import small_model
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config, ConfigDict
from PIL import Image

from centermask.datasets import Resize, augmentation
from centermask.datasets.augmentation import check_augmentation
from centermask.datasets.transforms import floor_size, round_size
from centermask.engine.runner import CenterMaskRunner
from centermask.mask_targets import has_outline
from centermask.utils.errors import InputError


def _size_of_paper(width: int, height: int, side: int, limit: int) -> tuple[int, int]:
    """The longer side is rounded down; where it would pass the limit the shorter one is first fitted to that."""
    shorter, longer = sorted((width, height))
    if longer * side > limit * shorter:
        side = round(Fraction(limit * shorter, longer))
    sides = (side, side * longer // shorter)
    return sides if width < height else sides[::-1]


def _size_of_star(width: int, height: int, side: int, limit: int) -> tuple[int, int]:
    """Both sides are rounded to nearest after up to two products, in float64 and in this order."""
    size = np.array([width, height]) * (side / min(width, height))
    size[np.argmin([width, height])] = side
    if size.max() > limit:
        size = size * (limit / size.max())
    width, height = np.floor(size + 0.5).astype(int).tolist()
    return width, height


class Recipe(NamedTuple):
    """The augmentation of a recipe: the shorter sides drawn, the limit of the longer one, and the rounding."""

    config: str
    sides: list[int]
    limit: int
    size: Callable[[int, int, int, int], tuple[int, int]]

    @property
    def legacy(self) -> int:
        """1 where a box ends at its last pixel, 0 where it ends behind that."""
        return int(self.size is _size_of_paper)


RECIPES = {
    'paper 1x': Recipe('centermask_r50_fpn_1x_coco', [800], 1333, _size_of_paper),
    'paper': Recipe('centermask_v2-99_fpn_3x_coco', list(range(640, 801)), 1333, _size_of_paper),
    'paper lite': Recipe('centermask-lite_v2-39_fpn_4x_coco', list(range(580, 601)), 1000, _size_of_paper),
    'star': Recipe('centermask-star_v2-39_fpn_3x_coco', [640, 672, 704, 736, 768, 800], 1333, _size_of_star),
    'star lite': Recipe('centermask-lite-star_v2-19-slim_fpn_4x_coco', [580, 600], 1000, _size_of_star),
}
ONE_OF_EACH = pytest.mark.parametrize('recipe', [RECIPES['paper'], RECIPES['star lite']], ids=['paper', 'star lite'])


def _training(recipe: Recipe) -> list[ConfigDict]:
    return read_config(recipe.config).train_dataloader.dataset.pipeline


# Sizes


@pytest.mark.parametrize(('resized', 'rule'), [(floor_size, _size_of_paper), (round_size, _size_of_star)])
def test_sizes(resized: Callable, rule: Callable) -> None:
    """Sizes of images up to 1500 x 1500, and of all with COCO's usual longer side of 640."""
    shapes = np.random.default_rng(0).integers(1, 1501, (2000, 2)).tolist()
    shapes += [shape for other in range(1, 641) for shape in ((640, other), (other, 640))]
    scales = [(side, recipe.limit) for recipe in RECIPES.values() for side in (recipe.sides[0], recipe.sides[-1])]
    for i, (width, height) in enumerate(shapes):
        for side, limit in (*scales, (640 + i % 161, 1333), (580 + i % 21, 1000)):
            size, expected = resized(width, height, (limit, side)), rule(width, height, side, limit)
            if min(expected) < 2:  # a line of pixels gets a second one, see Resize
                assert (min(size), max(size)) in ((2, max(expected)), (2, limit))
            else:
                assert size == expected


def test_half_a_pixel() -> None:
    """Where Detectron2's order of products decides: MMDetection's own gives 563."""
    assert round_size(640, 360, (1000, 600)) == (1000, 562)
    assert round_size(360, 640, (1000, 600)) == (562, 1000)
    assert round_size(640, 359, (1000, 600)) == (1000, 561)


@pytest.mark.parametrize('recipe', RECIPES.values(), ids=RECIPES)
def test_sides_and_flips(recipe: Recipe) -> None:
    """Every length that the recipe names is drawn, there is one limit, and half of the images are flipped."""
    (resize,) = [TRANSFORMS.build(t) for t in _training(recipe) if 'Resize' in t.type]
    if isinstance(resize, Resize):
        draws = [resize.scale]
    else:
        resize.resize = Mock(return_value={})  # the transform that gets what is drawn
        np.random.seed(0)
        draws = [(resize({}), resize.resize.scale)[1] for _ in range(20 * len(recipe.sides))]
    assert {max(draw) for draw in draws} == {recipe.limit}
    assert sorted({min(draw) for draw in draws}) == recipe.sides
    assert [t.prob for t in _training(recipe) if 'Flip' in t.type] == [0.5]


# Whole pipelines


@pytest.fixture(scope='module')
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in shapes that ask for every rule of rounding, with objects at the border, beyond it and a pixel wide."""
    folder = tmp_path_factory.mktemp('synthetic')
    (folder / 'images').mkdir()
    content = {'images': [], 'annotations': [], 'categories': [{'id': 1, 'name': 'person'}]}
    noise = np.random.default_rng(0)
    for width, height in [(640, 360), (360, 640), (97, 97), (500, 60), (61, 64), (640, 427)]:
        image = len(content['images'])
        content['images'].append({'id': image, 'file_name': f'{image}.png', 'width': width, 'height': height})
        pixels = Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        pixels.save(folder / f'images/{image}.png')
        for x, y, w, h in [
            (10, 20, 30.5, 25.25),
            (width - 20, height - 10, 20, 10),
            (5, 5, 1, 30),
            (-3, 4, width + 7, 30),
            (2, 2, 1.5, 40),
        ]:
            polygon = [x, y, x + w, y + 1.25, x + w / 3, y + h]
            annotation = {'id': len(content['annotations']), 'image_id': image, 'category_id': 1, 'iscrowd': 0}
            content['annotations'].append(
                annotation | {'bbox': [x, y, w, h], 'area': w * h / 2, 'segmentation': [polygon]}
            )
    (folder / 'instances.json').write_text(json.dumps(content))
    return folder


def _dataset(config: ConfigDict, folder: Path) -> CocoDataset:
    classes = {'classes': ('person',)} if 'synthetic' in folder.name else {}
    paths = dict(data_root=str(folder), ann_file='instances.json', data_prefix=dict(img='images'), metainfo=classes)
    return DATASETS.build({**config, **paths})


def _objects(recipe: Recipe, entry: dict, annotations: list[dict], shape: tuple[int, int], flip: bool) -> list[tuple]:
    """Box and polygons of each object of an image, resized to (height, width) and flipped or not."""
    size = np.array([entry['width'], entry['height']])
    factor = np.array(shape[::-1]) / size
    mirror = shape[1] - recipe.legacy
    objects = []
    for annotation in annotations:
        if annotation['image_id'] != entry['id'] or annotation['iscrowd']:
            continue
        start = np.array(annotation['bbox'][:2], dtype=np.float64)
        end = np.maximum(start + annotation['bbox'][2:] - recipe.legacy, start)
        start, end = (np.clip(corner, 0, size - recipe.legacy) for corner in (start, end))
        if recipe.legacy and (end <= start).any():
            continue
        (x1, y1), (x2, y2) = start * factor, end * factor
        polygons = [np.reshape(polygon, (-1, 2)) * factor for polygon in annotation['segmentation']]
        if flip:
            x1, x2 = mirror - x2, mirror - x1
            polygons = [np.stack([mirror - polygon[:, 0], polygon[:, 1]], axis=1) for polygon in polygons]
        objects.append(([x1, y1, x2, y2], polygons))
    return objects


@ONE_OF_EACH
def test_training_images(recipe: Recipe, synthetic: Path) -> None:
    """Pixels, boxes and polygons of what the training reads, drawn three times."""
    dataset = _dataset(read_config(recipe.config).train_dataloader.dataset, synthetic)
    content = json.loads((synthetic / 'instances.json').read_text())
    entries = {entry['id']: entry for entry in content['images']}
    np.random.seed(0)
    flips = set()
    for i in 3 * list(range(len(dataset))):
        item = dataset[i]
        sample = item['data_samples']
        entry = entries[sample.img_id]
        height, width = sample.img_shape
        sizes = {recipe.size(entry['width'], entry['height'], side, recipe.limit) for side in recipe.sides}
        assert (width, height) in sizes

        image = Image.open(sample.img_path).convert('RGB').resize((width, height), Image.Resampling.BILINEAR)
        bgr = np.asarray(image)[:, :: -1 if sample.flip else 1, ::-1]
        assert item['inputs'].dtype == torch.uint8
        assert np.array_equal(item['inputs'].permute(1, 2, 0).numpy(), bgr)

        objects = _objects(recipe, entry, content['annotations'], sample.img_shape, sample.flip)
        found = sample.gt_instances
        np.testing.assert_allclose(found.bboxes.tensor, [box for box, _ in objects], atol=1e-3)
        for polygons, (_, expected) in zip(found.masks.masks, objects, strict=True):
            for here, there in zip(polygons, expected, strict=True):
                np.testing.assert_allclose(here.reshape(-1, 2), there, atol=1e-9)
        assert (found.masks.height, found.masks.width) == (height, width)
        flips.add(sample.flip)
    assert flips == {True, False}


@ONE_OF_EACH
def test_tested_images(recipe: Recipe, shared: Path) -> None:
    """The greatest of the shorter sides, never flipped."""
    for item in _dataset(read_config(recipe.config).test_dataloader.dataset, shared / 'data/coco6'):
        sample = item['data_samples']
        height, width = sample.ori_shape
        size = recipe.size(width, height, recipe.sides[-1], recipe.limit)
        assert sample.img_shape == size[::-1]
        image = Image.open(sample.img_path).convert('RGB').resize(size, Image.Resampling.BILINEAR)
        assert np.array_equal(item['inputs'].permute(1, 2, 0).numpy(), np.asarray(image)[..., ::-1])


PAPER_MEAN, STAR_MEAN = [102.9801, 115.9465, 122.7717], [103.53, 116.28, 123.675]
RGB_MEAN, RGB_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # torchvision's


@pytest.mark.parametrize(
    ('name', 'mean', 'std'),
    [
        ('centermask_v2-39_fpn_3x_coco', PAPER_MEAN, [1, 1, 1]),
        ('centermask-star_x101_fpn_3x_coco', STAR_MEAN, RGB_STD[::-1]),
        ('centermask_hrnetv2-w32_fpn_1x_coco', RGB_MEAN, RGB_STD),
    ],
)
def test_normalised_and_padded(name: str, mean: list[float], std: list[float]) -> None:
    """Channels are blue, green, red, but for HRNet's weights; zeros follow at right and bottom to multiples of 32."""
    preprocess = MODELS.build(read_config(name).model.data_preprocessor)
    images = [torch.randint(256, (3, *shape), dtype=torch.uint8) for shape in ((64, 33), (40, 70))]
    expected = np.zeros((2, 3, 64, 96))
    for i, image in enumerate(images):
        _, height, width = image.shape
        pixels = image.numpy()[::-1] if 'hrnet' in name else image.numpy()
        expected[i, :, :height, :width] = (pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    for training in (True, False):
        batch = preprocess({'inputs': images}, training)['inputs']
        np.testing.assert_allclose(batch, expected, atol=1e-4)
        assert not batch[0, :, :, 33:].any() and not batch[1, :, 40:].any() and not batch[1, :, :, 70:].any()


# Augmentations of MMDetection

SIDE = 96
BOTH = (False, True)
# Steps that come before the recipe's own, and whether they get masks as bitmaps.
STEPS: dict[str, tuple[list[dict], tuple[bool, ...]]] = {
    'RandomCrop': ([dict(type='RandomCrop', crop_size=(60, 70), recompute_bbox=True)], BOTH),
    'RandomCrop, MaskBoxes': ([dict(type='RandomCrop', crop_size=(60, 70)), dict(type='MaskBoxes')], BOTH),
    'MinIoURandomCrop': ([dict(type='MinIoURandomCrop'), dict(type='MaskBoxes')], BOTH),
    'RandomErasing': ([dict(type='RandomErasing', n_patches=3, ratio=0.3), dict(type='MaskBoxes')], (True,)),
    'Expand': ([dict(type='Expand', prob=1.0)], (True,)),
    'PhotoMetricDistortion': ([dict(type='PhotoMetricDistortion')], BOTH),
    'CachedMosaic': ([dict(type='CachedMosaic', img_scale=(SIDE, SIDE))], BOTH),
    'CachedMixUp': ([dict(type='CachedMixUp', img_scale=(SIDE, SIDE), flip_ratio=1.0)], (False,)),
    'CopyPaste': ([dict(type='CopyPaste')], (True,)),
}
# Numbers of objects of images that hold three each, for steps that lose none.
COUNTS = {'Expand': {3}, 'PhotoMetricDistortion': {3}, 'CachedMixUp': {3, 6}}
OF_EACH_FORM = [(name, bitmaps) for name, (_, forms) in STEPS.items() for bitmaps in forms]


@pytest.fixture(scope='module')
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of one colour, each with three rectangles of colours of their own."""
    folder = tmp_path_factory.mktemp('squares')
    (folder / 'images').mkdir()
    content = {'images': [], 'annotations': [], 'categories': [{'id': 1, 'name': 'person'}]}
    for image in range(4):
        pixels = np.full((SIDE, SIDE, 3), 10, np.uint8)
        for x, y, w, h in [(5, 8, 30, 40), (50 + image, 10, 36, 24), (20, 60, 60, 30 - image)]:
            number = len(content['annotations'])
            pixels[y : y + h, x : x + w] = 60 + 15 * number
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            content['annotations'].append(
                {'id': number, 'image_id': image, 'category_id': 1, 'bbox': [x, y, w, h], 'segmentation': outline}
            )
        Image.fromarray(pixels).save(folder / f'images/{image}.png')
        content['images'].append({'id': image, 'file_name': f'{image}.png', 'width': SIDE, 'height': SIDE})
    (folder / 'instances.json').write_text(json.dumps(content))
    return folder


def _augmented(recipe: Recipe, steps: list[dict], bitmaps: bool, folder: Path) -> CocoDataset:
    """Build the training data of a recipe, at twice the images' size, with ``steps`` before its own."""
    config = read_config(recipe.config).train_dataloader.dataset
    image, annotations, *own = config.pipeline
    for step in own:
        if 'Resize' in step.type:
            step['scales' if 'scales' in step else 'scale'] = 2 * [(400, 2 * SIDE)]
    loading = [image, {**annotations, 'poly2mask': bitmaps}]
    paths = dict(data_root=str(folder), ann_file='instances.json', data_prefix=dict(img='images'))
    inner = {**config, **paths, 'metainfo': {'classes': ('person',)}, 'pipeline': loading}
    outer = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[*steps, *own])
    check_augmentation(outer, None)
    return DATASETS.build(outer)


@ONE_OF_EACH
@pytest.mark.parametrize(('name', 'bitmaps'), OF_EACH_FORM)
def test_augmentation(name: str, bitmaps: bool, recipe: Recipe, squares: Path) -> None:
    """Boxes are those of the masks, and the pixels of a mask those of its object, in images of all sizes."""
    dataset = _augmented(recipe, STEPS[name][0], bitmaps, squares)
    np.random.seed(0)
    random.seed(0)
    objects = 0
    for i in 3 * list(range(len(dataset))):
        item = dataset[i]
        sample = item['data_samples']
        found = sample.gt_instances
        boxes, masks = found.bboxes.tensor.numpy(), found.masks
        assert len(boxes) == len(masks) == len(found.labels)
        assert name not in COUNTS or len(boxes) in COUNTS[name]
        assert (masks.height, masks.width) == sample.img_shape == tuple(item['inputs'].shape[1:])
        ends = masks.get_bboxes('hbox').tensor.numpy() - [0, 0, recipe.legacy, recipe.legacy]
        for box, end, mask in zip(boxes, ends, masks.to_ndarray(), strict=True):
            if not mask.any():  # cut away without MaskBoxes: neither head learns it
                assert not box.any() or name == 'CopyPaste'
                continue
            objects += 1
            np.testing.assert_allclose(box, end, atol=6)
            if name not in ('PhotoMetricDistortion', 'CachedMixUp'):
                pixels = item['inputs'][0].numpy()[mask > 0]
                assert (abs(pixels - np.median(pixels)) < 3).mean() > 0.6, name
    assert objects > 20


LOADED = [dict(type='LoadAnnotations', with_mask=True)]
SQUARE = dict(type='Pad', pad_to_square=True)
POLYGONS = [dict(type='LoadAnnotations', with_mask=True, poly2mask=False)]
ALBU = dict(type='Albu', transforms=[], bbox_params=dict(type='BboxParams', filter_lost_elements=True))


@pytest.mark.parametrize(
    ('steps', 'words'),
    [
        ([*LOADED, dict(type='Mosaic')], 'use CachedMosaic'),
        ([*LOADED, dict(type='MixUp')], 'use CachedMixUp'),
        ([*LOADED, dict(type='mmdet.RandomAffine')], 'leave it out'),
        ([*LOADED, dict(type='RandomApply', transforms=[dict(type='RandomShift')])], 'RandomShift moves boxes'),
        ([*LOADED, dict(type='RandomChoice', transforms=[[dict(type='MixUp')], []])], 'MixUp moves boxes'),
        ([*POLYGONS, dict(type='CopyPaste')], 'poly2mask=True'),
        ([*POLYGONS, dict(type='Expand')], 'poly2mask=True'),
        ([*POLYGONS, dict(type='RandomErasing')], 'poly2mask=True'),
        ([*POLYGONS, dict(type='CachedMixUp')], 'flip_ratio=1.0'),
        ([*LOADED, dict(type='CachedMixUp', flip_ratio=1.0)], 'poly2mask=False'),
        ([*LOADED, dict(type='CachedMosaic', img_scale=(64, 32))], 'two equal sides'),
        ([*LOADED, dict(type='RoundResize'), dict(type='CopyPaste')], 'images of one size'),
        ([*LOADED, dict(type='Resize', scale=(64, 32)), SQUARE, dict(type='CopyPaste')], 'images of one size'),
        ([*LOADED, dict(type='RandomCrop')], "dict(type='MaskBoxes')"),
        ([*LOADED, dict(type='MaskBoxes'), dict(type='MinIoURandomCrop')], "dict(type='MaskBoxes')"),
        ([*LOADED, dict(type='LegacyBoxes'), dict(type='RandomCrop', recompute_bbox=True)], 'before LegacyBoxes'),
        ([*LOADED, dict(type='LegacyBoxes'), dict(type='RandomFlip')], 'or use LegacyFlip'),
        ([{**POLYGONS[0], 'with_seg': True}, dict(type='CachedMosaic')], 'does not move semantic labels'),
    ],
)
def test_refused_augmentation(steps: list[dict], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        check_augmentation(dict(type='RepeatDataset', dataset=dict(pipeline=steps)), 'config.py')
    without_masks = [step | {'with_mask': False} if step['type'] == 'LoadAnnotations' else step for step in steps]
    check_augmentation(dict(pipeline=without_masks), 'config.py')


def test_albumentations(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [*LOADED, ALBU]
    monkeypatch.setattr(augmentation, 'find_spec', Mock(return_value=None))
    with pytest.raises(InputError, match='pip install albumentations'):
        check_augmentation(dict(pipeline=steps), None)
    monkeypatch.setattr(augmentation, 'find_spec', Mock())
    check_augmentation(dict(pipeline=steps), None)
    with pytest.raises(InputError, match='filter_lost_elements=True'):
        check_augmentation(dict(pipeline=[*LOADED, {**ALBU, 'bbox_params': None}]), None)
    with pytest.raises(InputError, match='poly2mask=True'):
        check_augmentation(dict(pipeline=[*POLYGONS, ALBU]), None)


def test_recipes_and_wrappers_are_not_refused() -> None:
    for recipe in RECIPES.values():
        check_augmentation(dict(datasets=2 * [dict(pipeline=_training(recipe))]), None)
    for scale in (64, (64, 64)):
        steps = [dict(type='Resize', scale=scale), SQUARE, dict(type='CopyPaste')]
        check_augmentation(dict(pipeline=[*LOADED, *steps]), None)


def test_refused_before_training() -> None:
    config = Config({'train_dataloader': {'dataset': {'pipeline': [*LOADED, dict(type='Mosaic')]}}})
    runner = Mock(cfg=config, _detector=small_model)
    with pytest.raises(InputError, match='Mosaic'):
        CenterMaskRunner.build_train_loop(runner, {})


@ONE_OF_EACH
@pytest.mark.parametrize('bitmaps', BOTH)
def test_objects_without_outline_are_kept(bitmaps: bool, recipe: Recipe, squares: Path, tmp_path: Path) -> None:
    """The box head gets their boxes, and the mask branch no mask."""
    content = json.loads((squares / 'instances.json').read_text())
    boxes = content['annotations'][0]['bbox'], content['annotations'][1]['bbox']
    content['annotations'][0]['segmentation'] = []
    del content['annotations'][1]['segmentation']
    (tmp_path / 'instances.json').write_text(json.dumps(content))
    (tmp_path / 'images').symlink_to(squares / 'images')
    sample = _augmented(recipe, [], bitmaps, tmp_path)[0]['data_samples']
    found = sample.gt_instances
    assert len(sample.ignored_instances) == 0
    assert [has_outline(mask) for mask in found.masks.masks] == [False, False, True]
    for (_, y, w, h), box in zip(boxes, found.bboxes.tensor.tolist(), strict=False):
        assert [box[2] - box[0], box[1], box[3] - box[1]] == [2 * (w - recipe.legacy), 2 * y, 2 * (h - recipe.legacy)]
