"""YOLO's polygons read as COCO's, in every layout of data.yaml, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from centermask.datasets.coco_folder import CocoFolder, find_data
from centermask.utils.errors import InputError

TRIANGLE = '1 0.1 0.25 0.5 0.25 0.5 0.75\n'
NAMES = 'names: [cat, dog]\n'


@pytest.fixture
def put(tmp_path: Path) -> Callable:
    """Write an image of 40x20 pixels and its labels, where given."""

    def put(image: str, labels: str | None = TRIANGLE) -> None:
        path = tmp_path / 'DIR' / image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (40, 20)).save(path)
        if labels is not None:
            of = tmp_path / 'DIR' / image.replace('images', 'labels').replace('.png', '.txt')
            of.parent.mkdir(parents=True, exist_ok=True)
            of.write_text(labels)

    return put


@pytest.fixture
def find(tmp_path: Path) -> Callable[..., CocoFolder]:
    def find(yaml: str | None = None) -> CocoFolder:
        if yaml is not None:
            (tmp_path / 'DIR/data.yaml').write_text(yaml)
        return find_data(tmp_path / 'DIR', tmp_path / 'run')

    return find


def test_objects(put, find, tmp_path: Path) -> None:
    put('images/train/a.png', TRIANGLE + '\n0 0.5 0.5 0.25 0.5\n')
    put('images/train/empty.png', None)
    put('images/val/b.png', '\ufeff0 -0.01 0 1.02 0 1 1')
    data = find(f'train: images/train\nval: images/val\n{NAMES}')
    assert data.classes == ('cat', 'dog')
    content = json.loads((tmp_path / 'run/data/train.json').read_text())
    assert content['images'] == [
        {'width': 40, 'height': 20, 'id': 1, 'file_name': 'images/train/a.png'},
        {'width': 40, 'height': 20, 'id': 2, 'file_name': 'images/train/empty.png'},
    ]
    polygon, box = content['annotations']
    assert (polygon['category_id'], polygon['segmentation']) == (1, [[4, 5, 20, 5, 20, 15]])
    assert (polygon['bbox'], polygon['area'], box['area']) == ([4, 5, 16, 10], pytest.approx(80, abs=8), 100)
    assert (box['category_id'], box['segmentation'], box['bbox']) == (0, [], [15, 5, 10, 10])
    (outside,) = json.loads((tmp_path / 'run/data/val.json').read_text())['annotations']
    assert outside['segmentation'] == [[0, 0, 40, 0, 40, 20]]
    assert data.val.images == tmp_path / 'DIR' and "data.yaml is in YOLO's format" in data.remarks[0]


def test_size_is_that_of_the_rotated_image(put, find, tmp_path: Path) -> None:
    put('images/a.png')
    put('images/b.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (40, 20)).save(tmp_path / 'DIR/images/a.png', exif=exif)
    find(f'train: images\n{NAMES}')
    images = [json.loads((tmp_path / f'run/data/{name}.json').read_text())['images'][0] for name in ('train', 'val')]
    assert {image['file_name']: (image['width'], image['height']) for image in images} == {
        'images/a.png': (20, 40),
        'images/b.png': (40, 20),
    }


@pytest.mark.parametrize(
    ('yaml', 'train', 'val'),
    [
        ('path: .\ntrain: images/train\nval: images/val\n', 'images/train/a.png', 'images/val/b.png'),
        ('train: ../train/images\nval: ../valid/images\n', 'train/images/a.png', 'valid/images/b.png'),  # Roboflow
        ('path: /content/data\ntrain: train/images\nval: val/images\n', 'train/images/a.png', 'val/images/b.png'),
        ('train: /home/me/set/images/train\nval: C:\\set\\images\\val\n', 'images/train/a.png', 'images/val/b.png'),
        (
            'path: ../datasets/set\ntrain: [images/1, images/2]\nvalidation: images/3\n',
            'images/1/a.png',
            'images/3/b.png',
        ),
        ('train: train.txt\nval: val.txt\n', 'images/x/a.png', 'images/x/b.png'),
        ('train: images\n', 'images/a.png', 'images/deep/b.png'),
        ('train: pictures\n', 'pictures/a.png', 'pictures/b.png'),  # labels beside the images
    ],
)
def test_splits(put, find, tmp_path: Path, yaml: str, train: str, val: str) -> None:
    put(train)
    put(val)
    put('images/2/c.png')
    (tmp_path / 'DIR/train.txt').write_text(f'./{train}\n')
    (tmp_path / 'DIR/val.txt').write_text(f'/home/me/{val}\n')
    data = find(yaml + NAMES)
    files = {
        name: {image['file_name'].split('DIR/')[-1] for image in split.content['images']}
        for name, split in (('train', data.train), ('val', data.val))
    }
    if 'val' in yaml:
        assert train in files['train'] and files['val'] == {val}
        assert ('images/2/c.png' in files['train']) == ('[' in yaml)
    else:
        assert {train, val} <= files['train'] | files['val'] and not files['train'] & files['val']
    assert all((data.train.images / image['file_name']).is_file() for image in data.train.content['images'])


@pytest.mark.parametrize(
    ('names', 'classes'),
    [
        ('names: {0: cat, 1: dog}\n', ('cat', 'dog')),
        ('names: ["no", 1]\n', ('no', '1')),
        ('names:\n- no\n- 1\n', ('no', '1')),
    ],
)
def test_names(put, find, names: str, classes: tuple[str, ...]) -> None:
    put('images/a.png')
    put('images/b.png')
    assert find('train: images\n' + names).classes == classes


def test_other_yaml_files(put, find, tmp_path: Path) -> None:
    put('images/a.png')
    put('images/b.png')
    (tmp_path / 'DIR/compose.yml').write_text('names: {{ x')
    (tmp_path / 'DIR/coco8-seg.yaml').write_text(f'train: images\n{NAMES}')
    assert find().classes == ('cat', 'dog')


@pytest.mark.parametrize('place', ['classes.txt', 'labels/classes.txt'])
def test_names_in_a_text_file(put, find, tmp_path: Path, place: str) -> None:
    """As Label Studio exports."""
    put('images/a.png')
    put('images/b.png')
    (tmp_path / 'DIR' / place).write_text('cat\ndog\n')
    (tmp_path / 'DIR/notes.json').write_text('{}')
    assert find().classes == ('cat', 'dog')


@pytest.mark.parametrize(
    ('yaml', 'labels', 'words'),
    [
        ('', '0 0.1 0.1 a', r'labels/a\.txt, line 1 is not a class and numbers'),
        ('', '2 0.1 0.1 0.2 0.2 0.3 0.1', r'labels/a\.txt, line 1 has the class 2, which is not one of 0, 1'),
        ('', TRIANGLE + '0 10 10 20 20 10 20', r'a\.txt, line 2 has a value outside of the image: they must be parts'),
        ('', '0 0.1 nan 0.2 0.2 0.3 0.1', r'line 1 has a value outside'),
        ('', None, r'none of its 1 images has labels, those of .*a\.png would be .*labels/a\.txt'),
        ('val: images/val\n', TRIANGLE, r'data\.yaml names images/val, which is not there'),
        ('kpt_shape: [17, 3]\n', TRIANGLE, r'data\.yaml is of key points'),
        ('names: []\n', TRIANGLE, r'data\.yaml has no valid "names"'),
        ('names: [cat\n', TRIANGLE, r'data\.yaml is not valid YAML'),
    ],
)
def test_refused(put, find, tmp_path: Path, yaml: str, labels: str | None, words: str) -> None:
    put('images/a.png', labels)
    with pytest.raises(InputError, match=words) as caught:
        find(f'train: images\n{"" if "names: [" in yaml else NAMES}{yaml}')
    assert '\n' not in str(caught.value) and not (tmp_path / 'run').exists()
