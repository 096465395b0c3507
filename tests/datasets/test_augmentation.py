"""Images as the recipes prepare them: the pipelines of one config each against rules that are written out here."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers.read_configs import read_config
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import ConfigDict
from PIL import Image

from centermask.datasets import Resize
from centermask.datasets.transforms import floor_size, round_size


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
