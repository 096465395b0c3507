"""Mask images read as COCO's RLE, in every layout, and what is refused."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_utils
import pytest
from PIL import Image

from centermask.datasets.coco_folder import CocoFolder, find_data
from centermask.utils.errors import InputError

SIZE = (12, 16)


def masks(seed: int) -> list[np.ndarray]:
    """Return three masks that touch, one of them in two parts, one at the last pixel."""
    found = [np.zeros(SIZE, bool) for _ in range(3)]
    found[0][1:4, seed : seed + 4] = True
    found[1][4:6, 0:2] = found[1][4:6, 8:10] = True
    found[2][6:12, 10:16] = True
    return found


def ids(seed: int, values: tuple[int, ...] = (3, 300, 65535)) -> np.ndarray:
    """Return the masks as one image of ids."""
    return sum((value * mask for mask, value in zip(masks(seed), values, strict=True)), np.zeros(SIZE, np.int32))


@pytest.fixture
def put(tmp_path: Path) -> Callable:
    """Write an array as an image."""

    def put(name: str, array: np.ndarray | None = None) -> None:
        array = np.zeros((*SIZE, 3), np.uint8) if array is None else array
        path = tmp_path / 'DIR' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    return put


@pytest.fixture
def find(tmp_path: Path) -> Callable[..., CocoFolder]:
    return lambda: find_data(tmp_path / 'DIR', tmp_path / 'run')


def read(data: CocoFolder) -> dict[str, set[tuple]]:
    """Return the masks of each image, by the name of its file, as positions of pixels."""
    found = {}
    for split in (data.train, data.val):
        for image in split.content['images']:
            entries = [entry for entry in split.content['annotations'] if entry['image_id'] == image['id']]
            for entry in entries:
                rows, columns = np.nonzero(mask_utils.decode(entry['segmentation']))
                assert entry['bbox'] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert entry['area'] == len(rows) and (image['height'], image['width']) == SIZE
            found[Path(image['file_name']).name] = {
                tuple(np.flatnonzero(mask_utils.decode(entry['segmentation'])).tolist()) for entry in entries
            }
    return found


def expected(seed: int) -> set[tuple]:
    return {tuple(np.flatnonzero(mask).tolist()) for mask in masks(seed)}


@pytest.mark.parametrize(
    ('image', 'mask'),
    [
        ('{name}/images/{name}.png', '{name}/masks/{i}.png'),  # Data Science Bowl 2018
        ('images/{name}.jpg', 'masks/{name}/{i}.png'),
        ('images/{name}.jpg', 'masks/{name}_{i}.png'),
        ('train/images/{name}.jpg', 'train/masks/{name}/{i}.png'),
    ],
)
def test_a_file_an_object(put, find, image: str, mask: str) -> None:
    for seed, name in enumerate(('a', 'a1', 'b')):
        put(image.format(name=name))
        for i, each in enumerate(masks(seed)):
            put(mask.format(name=name, i=i), np.uint8(255) * each)
    found = read(find())
    assert {name.partition('.')[0]: objects for name, objects in found.items()} == {
        name: expected(seed) for seed, name in enumerate(('a', 'a1', 'b'))
    }


@pytest.mark.parametrize(
    ('image', 'mask'),
    [
        ('images/{name}.jpg', 'masks/{name}.png'),
        ('images/{name}.jpg', 'labels/{name}_mask.tif'),
        ('{name}.png', '{name}_masks.png'),  # Cellpose
        ('{name}.png', '{name}_cp_masks.png'),
        ('images/{name}.jpg', 'masks/{name}.jpg.png'),
        ('images/{name}.jpg', 'masks/{name}_instance_map.png'),
        ('{name}_img.png', '{name}_masks.tif'),
        ('{name}.png', 'masks/{name}.png'),
        ('images/x/{name}.png', 'instances/x/{name}.png'),
    ],
)
def test_a_file_of_ids(put, find, image: str, mask: str) -> None:
    for seed, name in enumerate(('a', 'a_1', 'b')):
        put(image.format(name=name))
        put(mask.format(name=name), ids(seed).astype(np.uint16))
    found = read(find())
    assert {name.replace('_img', '').partition('.')[0]: objects for name, objects in found.items()} == {
        name: expected(seed) for seed, name in enumerate(('a', 'a_1', 'b'))
    }


@pytest.mark.parametrize(
    'convert',
    [
        lambda seed: ids(seed, (1, 2, 255)).astype(np.uint8),
        lambda seed: ids(seed, (1, 2, 70000)).astype(np.int32),
        lambda seed: ids(seed, (1, 2, 3)).astype(np.float32),
        lambda seed: np.stack([ids(seed, v).astype(np.uint8) for v in ((1, 1, 0), (0, 1, 1), (0, 0, 1))], axis=-1),
        lambda seed: np.stack(
            [ids(seed, v).astype(np.uint8) for v in ((1, 2, 3),) * 3] + [np.full(SIZE, 255, np.uint8)], axis=-1
        ),
    ],
    ids=['8 bits', '32 bits', 'floats', 'colours', 'alpha'],
)
def test_values(put, find, convert: Callable) -> None:
    for seed, name in enumerate('ab'):
        put(f'images/{name}.png')
        put(f'masks/{name}.tif', convert(seed))
    assert read(find()) == {'a.png': expected(0), 'b.png': expected(1)}


@pytest.mark.parametrize(('parts', 'above'), [(('train', 'valid'), True), (('training', 'validation'), False)])
def test_splits_by_folder(put, find, tmp_path: Path, parts: tuple[str, str], above: bool) -> None:
    for part in parts:
        put(f'{part}/images/{part}.png' if above else f'images/{part}/{part}.png')
        put(f'{part}/masks/{part}.png' if above else f'masks/{part}/{part}.png', ids(2).astype(np.uint16))
    data = find()
    for split, part in ((data.train, parts[0]), (data.val, parts[1])):
        assert [Path(image['file_name']).stem for image in split.content['images']] == [part]
        assert split.objects.total() == 3 and split.ann_file.parent == tmp_path / 'run/data'


def test_folders_that_are_links(put, find, tmp_path: Path) -> None:
    for name in 'ab':
        put(f'../elsewhere/{name}.png')
        put(f'masks/{name}.png', ids(1).astype(np.uint16))
    (tmp_path / 'DIR/images').symlink_to(tmp_path / 'elsewhere')
    assert read(find()) == {'a.png': expected(1), 'b.png': expected(1)}


def test_remarks(put, find) -> None:
    for name in 'abc':
        put(f'images/{name}.png')
        put(f'masks/{name}/1.png', np.uint8(255) * masks(1)[0])
    put('masks/c/2.png', np.zeros(SIZE, np.uint8))
    put('images/d.png')
    data = find()
    assert data.train.objects.total() + data.val.objects.total() == 3
    assert '1 images without a mask file are left out' in data.remarks[1] and 'd.png' in data.remarks[1]
    assert data.remarks[2] == '1 mask files hold no object.'


def test_soft_edges_count_by_half(put, find) -> None:
    soft = np.zeros(SIZE, np.uint8)
    soft[2:10, 2:10], soft[2:10, 3:9] = 90, 250
    for name in 'ab':
        put(f'{name}/images/{name}.png')
        put(f'{name}/masks/1.png', soft)
    data = find()
    assert [entry['area'] for split in (data.train, data.val) for entry in split.content['annotations']] == [48, 48]


def test_classes_instead_of_ids_are_remarked(put, find) -> None:
    for name in 'ab':
        put(f'images/{name}.png')
        classes = np.zeros(SIZE, np.uint8)
        classes[::4, ::4], classes[2::4, ::4] = 1, 2
        put(f'masks/{name}.png', classes)
    assert 'have 4 values in 48 parts that do not touch' in find().remarks[1]


def test_nuclei_as_the_docs_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gray and dark images of 256x256 are left of the public source's layout."""
    source = tmp_path / 'stage1_train'
    for name, size, colour in (
        ('a', 256, (9, 9, 9)),
        ('b', 256, (9, 9, 9)),
        ('small', 128, (9, 9, 9)),
        ('stained', 256, (90, 20, 90)),
        ('bright', 256, (200, 200, 200)),
    ):
        for folder in ('images', 'masks'):
            (source / name / folder).mkdir(parents=True)
        Image.new('RGBA', (size, size), (*colour, 255)).save(source / name / f'images/{name}.png')
        for i in range(3):
            mask = Image.new('L', (size, size))
            mask.paste(255, (20 * i, 5, 20 * i + 20, 30))
            mask.save(source / name / f'masks/{i}.png')
    page = (Path(__file__).parents[2] / 'docs/own_data.md').read_text()
    script = textwrap.dedent(page.partition("    python - <<'END'\n")[2].partition('    END\n')[0])
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    assert sorted(path.name for path in source.iterdir()) == ['a', 'b']
    data = find_data(source, tmp_path / 'run')
    assert data.train.objects == data.val.objects == {'object': 3}
    assert [entry['bbox'] for entry in data.val.content['annotations']] == [[20 * i, 5, 20, 25] for i in range(3)]


def _size(put: Callable) -> None:
    put('masks/a.png', np.ones((5, 5), np.uint8))


def _one_value(put: Callable) -> None:
    pattern = np.zeros(SIZE, np.uint8)
    pattern[::2, ::2] = 255
    put('masks/a.png', pattern)


def _jpeg(put: Callable) -> None:
    put('masks/a.jpg', ids(1, (1, 2, 3)).astype(np.uint8))


def _lost(put: Callable) -> None:
    put('masks/a.png', ids(1).astype(np.uint16))
    put('masks/x.png', ids(1).astype(np.uint16))
    put('images/b.png')


def _ids_by_other_names(put: Callable) -> None:
    put('masks/a_final_version.png', ids(1, (1, 2, 9)).astype(np.uint8))


def _two_images(put: Callable) -> None:
    put('masks/a.png', ids(1).astype(np.uint16))
    put('images/a.jpg')


@pytest.mark.parametrize(
    ('prepare', 'words'),
    [
        (_size, r'The mask .*masks/a\.png is 5x5 pixels but its image .*images/a\.png 16x12'),
        (_one_value, r'DIR: the masks have one value, 255, for all objects of an image'),
        (_jpeg, r'The mask .*a\.jpg is a JPEG file'),
        (_lost, r'1 mask files belong to no image, such as .*x\.png'),
        (
            _ids_by_other_names,
            r'DIR: \d+% of the pixels of the masks, such as .*a_final_version\.png, have less than half',
        ),
        (_two_images, r'a\.png could be the mask of .*a\.jpg, .*a\.png: leave one'),
    ],
)
def test_refused(put, find, tmp_path: Path, prepare: Callable, words: str) -> None:
    put('images/a.png')
    prepare(put)
    with pytest.raises(InputError, match=words) as caught:
        find()
    assert '\n' not in str(caught.value) and not (tmp_path / 'run').exists()
