"""Each thing that can be wrong with a data set is found, named, graded, and mended where it can be."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

from centermask.datasets.annotations import CocoAnnotations
from centermask.datasets.checking import Assignment, Check, check_dataset, draw_worst, write_repaired
from centermask.datasets.checking import findings as kinds
from centermask.datasets.checking.findings import Level, level_of
from centermask.utils.errors import InputError, RunError

CONFIGS = Path(__file__).resolve().parents[3] / 'configs'
CONFIG = CONFIGS / 'centermask-lite-star_v2-19-slim_fpn_4x_coco.py'
WIDTH, HEIGHT = 640, 480
GIF = {'format': 'GIF', 'save_all': True, 'append_images': [Image.new('L', (WIDTH, HEIGHT), 9)]}


def rectangle(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def annotation(number: int, x: float, y: float, w: float, h: float, **fields: object) -> dict:
    """A rectangle on image 1, of category 7, but for what ``fields`` say."""
    outline = {'segmentation': [rectangle(x, y, w, h)], 'bbox': [x, y, w, h], 'area': w * h, 'iscrowd': 0}
    return {'id': number, 'image_id': 1, 'category_id': 7, **outline, **fields}


@pytest.fixture
def content() -> dict:
    """Three images, the first with three objects, of a P3, P4 and P5 each by Eq. 2; nothing is wrong."""
    return {
        'categories': [{'id': 7, 'name': 'cat'}, {'id': 3, 'name': 'dog'}],
        'images': [{'id': i, 'file_name': f'{i}.png', 'width': WIDTH, 'height': HEIGHT} for i in (1, 2, 3)],
        'annotations': [
            annotation(101, 400, 300, 20, 20),
            annotation(102, 100, 20, 320, 300),
            annotation(103, 0, 0, WIDTH, HEIGHT, category_id=3, image_id=2),
        ],
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the images, each of its own colour."""
    (tmp_path / 'images').mkdir()
    for i in (1, 2, 3):
        Image.new('RGB', (WIDTH, HEIGHT), (60 * i, 90, 120)).save(tmp_path / 'images' / f'{i}.png')
    return tmp_path / 'images'


@pytest.fixture(scope='module')
def assignment() -> Assignment:
    return Assignment(Config.fromfile(CONFIG))


@pytest.fixture
def check(content: dict, images: Path, assignment: Assignment, tmp_path: Path) -> Callable[..., Check]:
    def check(ann_file: Path | None = None, assignment: Assignment = assignment, **arguments: object) -> Check:
        if ann_file is None:
            ann_file = tmp_path / 'annotations.json'
            ann_file.write_text(json.dumps(content))
        return check_dataset(ann_file, images, assignment, **arguments)

    return check


def test_counts(check) -> None:
    found = check()
    assert found.findings == [] and found.trains
    assert found.objects == {'cat': {'small': 1, 'large': 1}, 'dog': {'large': 1}}
    assert found.images_with == {'cat': 1, 'dog': 1} and found.empty_images == 1 and found.crowds == 0
    # At 800 x 600: k = ceil(5 - log2(480000 / area)), of 25 x 25 to P3, of 400 x 375 to 4, of all to 5.
    assert found.levels == {0: 1, 1: 1, 2: 1} and found.strides == (8, 16, 32)


def test_crowds_are_no_objects(check, content: dict) -> None:
    content['annotations'] += [annotation(104, 5, 5, 3, 3, iscrowd=1), annotation(105, 9, 9, 40, 40, iscrowd=1)]
    content['annotations'][-1]['segmentation'] = None
    found = check()
    assert found.crowds == 2 and found.objects['cat'].total() == 2 and found.findings == []


BOW_TIE = [10, 10, 50, 50, 50, 10, 10, 50]
COLUMNS = [HEIGHT * 10 + 10, *[40, HEIGHT - 40] * 39, 40]
RLE = {'size': [HEIGHT, WIDTH], 'counts': [*COLUMNS, HEIGHT * WIDTH - sum(COLUMNS)]}

OBJECTS = {
    kinds.NO_LOCATION: annotation(9, 5.5, 5.5, 2, 2),
    kinds.COVERED: annotation(9, 400, 300, 20, 20, category_id=3),
    kinds.NO_AREA: annotation(9, 10, 10, 40, 40, segmentation=[[10, 10, 30, 30, 50, 50]]),
    kinds.FLAT: annotation(9, 10, 10, 40, 40, segmentation=[[10, 10, 30, 30, 50, 50], rectangle(10, 10, 40, 40)]),
    kinds.CROSSING: annotation(9, 10, 10, 40, 40, segmentation=[BOW_TIE]),
    kinds.OUTSIDE: annotation(9, 600, 400, 60, 60),
    kinds.BOX: annotation(9, 10, 10, 40, 40, bbox=[10, 10, 80, 80]),
    kinds.BOX_UNUSABLE: annotation(9, 10, 10, 40, 40, bbox=[700, 10, 40, 40]),
    kinds.RLE: annotation(9, 10, 10, 40, 40, segmentation=RLE),
    kinds.DUPLICATE: annotation(9, 400, 300, 20, 20),
    kinds.UNKNOWN_CATEGORY: annotation(9, 10, 10, 40, 40, category_id=99),
    kinds.UNKNOWN_IMAGE: annotation(9, 10, 10, 40, 40, image_id=99),
    kinds.IDS: annotation(101, 10, 10, 40, 40),
    kinds.FIELDS: annotation(9, 10, 10, 40, 40, area='big'),
    'without segmentation': annotation(9, 10, 10, 40, 40, segmentation=[]),
    'whose polygon has under three points': annotation(9, 10, 10, 40, 40, segmentation=[[1, 1, 2, 2]]),
    'whose RLE is damaged': annotation(9, 10, 10, 40, 40, segmentation={'size': [1, 1]}),
    'whose RLE is not of the size of its image': annotation(
        9, 10, 10, 40, 40, segmentation={'size': [4, 6], 'counts': [4, 20]}
    ),
    'in part, as one polygon has under three points': annotation(
        9, 10, 10, 40, 40, segmentation=[[1, 1, 2, 2], rectangle(10, 10, 40, 40)]
    ),
}


@pytest.mark.parametrize('kind', OBJECTS)
def test_objects(check, content: dict, kind: str, tmp_path: Path) -> None:
    content['annotations'].append(OBJECTS[kind])
    found = check()
    assert {finding.kind for finding in found.findings} == {kind}
    assert found.trains == (level_of(kind) == Level.NOTE)

    changes, left = write_repaired(found, tmp_path / 'fixed.json')
    again = check(tmp_path / 'fixed.json')
    if kind in kinds.BEYOND_REPAIR:
        assert len(left) == 1 and changes == [] and [f.kind for f in again.findings] == [kind]
    else:
        assert left == [] and len(changes) == 1 and again.findings == []
    # What was right stays as it was.
    fixed = json.loads((tmp_path / 'fixed.json').read_text())
    assert fixed['annotations'][:3] == content['annotations'][:3]
    assert CocoAnnotations(str(tmp_path / 'fixed.json')).unusable == {}


@pytest.mark.parametrize(
    ('kind', 'area', 'box'),
    [
        (kinds.CROSSING, 800, [10, 10, 40, 40]),
        (kinds.OUTSIDE, 2400, [600, 400, 40, 60]),
        (kinds.BOX, 1600, [10, 10, 40, 40]),
        (kinds.BOX_UNUSABLE, 1600, [10, 10, 40, 40]),
        (kinds.RLE, 1600, [10, 10, 40, 40]),
        (kinds.FLAT, 1600, [10, 10, 40, 40]),
    ],
)
def test_mended_objects(check, content: dict, kind: str, area: float, box: list, tmp_path: Path) -> None:
    content['annotations'].append(OBJECTS[kind])
    write_repaired(check(), tmp_path / 'fixed.json')
    mended = json.loads((tmp_path / 'fixed.json').read_text())['annotations'][3]
    assert mended['bbox'] == box and mended['area'] == pytest.approx(area, abs=45)
    assert isinstance(mended['segmentation'], list)


def _save(image: Image.Image, **options: object) -> Callable[[Path], None]:
    return lambda path: image.save(path, **options)


def _truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format='JPEG')
    path.write_bytes(path.read_bytes()[:20_000])


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 3
    return exif


IMAGES = {
    'missing': (Path.unlink, {kinds.MISSING}),
    'empty': (lambda path: path.write_bytes(b''), {kinds.UNREADABLE}),
    'truncated': (_truncated, {kinds.UNREADABLE}),
    'size': (_save(Image.new('RGB', (WIDTH + 40, HEIGHT))), {kinds.SIZE}),
    'smaller': (_save(Image.new('RGB', (WIDTH // 2, HEIGHT // 2))), {kinds.SIZE}),
    'cut': (_save(Image.new('RGB', (WIDTH // 2, HEIGHT))), {kinds.SIZE}),
    'turned': (_save(Image.new('RGB', (WIDTH, HEIGHT)), format='JPEG', exif=_turned()), {kinds.ROTATED}),
    'gray': (_save(Image.new('L', (WIDTH, HEIGHT))), {kinds.GRAY}),
    '16 bits': (_save(Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16))), {kinds.GRAY, kinds.DEEP}),
    'alpha': (_save(Image.new('RGBA', (WIDTH, HEIGHT))), {kinds.ALPHA}),
    'CMYK': (_save(Image.new('CMYK', (WIDTH, HEIGHT)), format='JPEG'), {kinds.REFUSED}),
    'animated': (_save(Image.new('L', (WIDTH, HEIGHT)), **GIF), {kinds.REFUSED}),
    'copy': (lambda path: path.write_bytes(path.with_name('3.png').read_bytes()), {kinds.COPIES}),
}


@pytest.mark.parametrize('case', IMAGES)
def test_images(check, images: Path, case: str, tmp_path: Path) -> None:
    change, expected = IMAGES[case]
    change(images / '2.png')
    found = check()
    assert {finding.kind for finding in found.findings} == expected
    assert found.trains == all(level_of(kind) == Level.NOTE for kind in expected)
    changes, left = write_repaired(found, tmp_path / 'fixed.json')
    again = check(tmp_path / 'fixed.json')
    fixed = json.loads((tmp_path / 'fixed.json').read_text())
    assert again.trains and left == []
    if case == 'size':
        assert changes == [f'size set to {WIDTH + 40}x{HEIGHT}: 2.png'] and fixed['images'][1]['width'] == WIDTH + 40
    elif not found.trains:
        assert len(changes) == 1 and 'left out with its objects: 2.png' in changes[0]
        assert [image['id'] for image in fixed['images']] == [1, 3] and len(fixed['annotations']) == 2


def test_a_file_listed_twice(check, content: dict) -> None:
    content['images'].append({**content['images'][2], 'id': 4})
    assert [(f.kind, f.what, f.image) for f in check().findings] == [(kinds.COPIES, '3.png (3.png)', 4)]


def test_max_pixels_are_those_of_training(
    check, content: dict, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is larger isn't decoded; what isn't larger is, whatever limit PIL has."""
    for i in (2, 3):
        Image.new('RGB', (WIDTH, HEIGHT + i)).save(images / f'{i}.png')
    decoded = []
    monkeypatch.setattr(mmcv, 'imfrombytes', lambda content: decoded.append(content) or np.zeros((HEIGHT, WIDTH, 3)))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100_000)
    cfg = Config.fromfile(CONFIG)
    data = cfg.train_dataloader.dataset
    data.update(max_pixels=WIDTH * HEIGHT, data_root='', ann_file=f'{tmp_path}/annotations.json')
    data.update(data_prefix={'img': f'{images}/'}, metainfo={'classes': ('cat', 'dog')})
    found = check(assignment=Assignment(cfg))
    assert [(f.kind, f.what) for f in found.findings] == [(kinds.REFUSED, '2.png'), (kinds.REFUSED, '3.png')]
    assert decoded == [(images / '1.png').read_bytes()] and not found.trains
    with pytest.raises(InputError, match=r'2\.png has 640x482 pixels, more than the 307200'):  # as training has it
        DATASETS.build(data)[1]
    assert draw_worst(found, tmp_path / 'sheet.png') == 2
    data.max_pixels = 'many'
    with pytest.raises(InputError, match=r"train_dataloader of .*slim.*: max_pixels is a number from 1 up, not 'many'"):
        Assignment(cfg)


def test_scale_that_is_none() -> None:
    cfg = Config.fromfile(CONFIG)
    cfg.train_dataloader.dataset.pipeline = [dict(type='RoundResize', scale=5)]
    with pytest.raises(InputError, match=r"train_dataloader of .*slim.*: RoundResize's scale is two lengths from 2 pi"):
        Assignment(cfg)


def test_entries_of_the_file(check, content: dict, images: Path, tmp_path: Path) -> None:
    content['categories'] += [{'id': 8, 'name': 'cat'}, {'name': 'nothing'}]
    content['images'] += [{'id': 4, 'file_name': '4.png'}, {'id': 1, 'file_name': '3.png', 'width': 1, 'height': 1}]
    Image.new('RGB', (WIDTH, HEIGHT)).save(images / '4.png')
    content['annotations'] += [annotation(9, 10, 10, 40, 40, category_id=8, image_id=4), 'nothing']
    content['annotations'] += [annotation(101, 90, 90, 40, 40, area='big')]
    found = check()
    assert not found.trains
    assert [f.what for f in found.findings if f.kind == kinds.NAMES] == ['"cat"']
    assert [f.what for f in found.findings if f.kind == kinds.IDS] == [
        '1 of entry 4 of "images"',
        '101 of entry 5 of "annotations"',
    ]
    assert len([f for f in found.findings if f.kind == kinds.FIELDS]) == 4
    write_repaired(found, tmp_path / 'fixed.json')
    fixed = json.loads((tmp_path / 'fixed.json').read_text())
    assert [category['id'] for category in fixed['categories']] == [7, 3]
    assert fixed['images'][3]['width'] == WIDTH and len(fixed['images']) == 4
    assert fixed['annotations'][3]['category_id'] == 7 and [a['id'] for a in fixed['annotations']] == [
        101,
        102,
        103,
        9,
        104,
    ]
    assert check(tmp_path / 'fixed.json').findings == []


NOTHING = {
    'no categories': ({'categories': []}, 'annotations.json has no categories'),
    'no images': ({'images': []}, 'annotations.json has no images'),
    'no annotations': ({'annotations': []}, 'annotations.json has no usable objects but crowds'),
    'crowds': (
        {'annotations': [annotation(1, 5, 5, 9, 9, iscrowd=1)]},
        'annotations.json has no usable objects but crowds',
    ),
}


@pytest.mark.parametrize('case', NOTHING)
def test_nothing_to_train_on(check, content: dict, images: Path, case: str, tmp_path: Path) -> None:
    """As the data set has it, which refuses the file: no repaired copy is written."""
    change, what = NOTHING[case]
    content.update(change)
    found = check()
    assert not found.trains and (kinds.NOTHING, what) in [(f.kind, f.what) for f in found.findings]
    data = Config.fromfile(CONFIG).train_dataloader.dataset
    data.update(data_root='', ann_file=f'{tmp_path}/annotations.json', data_prefix={'img': f'{images}/'})
    data.metainfo = {'classes': ('cat', 'dog')}
    with pytest.raises(InputError, match=r'lists no categories|leaves nothing to work on'):
        DATASETS.build(data)
    with pytest.raises(RunError, match=r'--fix .*fixed\.json is not written: no object would be left'):
        write_repaired(found, tmp_path / 'fixed.json')
    assert not (tmp_path / 'fixed.json').exists()


def test_nothing_is_left_without_the_images(check, images: Path, tmp_path: Path) -> None:
    for image in images.iterdir():
        image.unlink()
    with pytest.raises(RunError, match='no object would be left'):
        write_repaired(check(), tmp_path / 'fixed.json')
    assert not (tmp_path / 'fixed.json').exists()


def test_objects_that_are_mended_are_enough(check, content: dict, tmp_path: Path) -> None:
    content['annotations'] = [OBJECTS[kinds.BOX_UNUSABLE]]
    found = check()
    assert {f.kind for f in found.findings} == {kinds.BOX_UNUSABLE, kinds.NOTHING}
    write_repaired(found, tmp_path / 'fixed.json')
    assert check(tmp_path / 'fixed.json').findings == []


@pytest.mark.parametrize('name', ['annotations.json', 'images/../annotations.json', 'link.json', 'hard.json'])
def test_the_original_stays(check, name: str, tmp_path: Path) -> None:
    found = check()
    before = (tmp_path / 'annotations.json').read_bytes()
    (tmp_path / 'link.json').symlink_to('annotations.json')
    (tmp_path / 'hard.json').hardlink_to(tmp_path / 'annotations.json')
    with pytest.raises(InputError, match=rf'{name} is the file that is checked'):
        write_repaired(found, tmp_path / name)
    assert (tmp_path / 'annotations.json').read_bytes() == before and (tmp_path / 'link.json').is_symlink()


def test_files_that_can_not_be_checked(check, content: dict, images: Path, tmp_path: Path) -> None:
    check()
    with pytest.raises(InputError, match=r'The folder of images .*nowhere does not exist'):
        check_dataset(tmp_path / 'annotations.json', tmp_path / 'nowhere', None)
    content['images'][0]['id'] = 'one'
    with pytest.raises(InputError, match='has ids of "images" that are numbers and others that are text'):
        check()
    del content['images']
    with pytest.raises(InputError, match='it has no list "images"'):
        check()


# In a program of its own: a fork of this one, with the threads of all tests before, ended it once.
IN_TWO_PROCESSES = """
import pickle, sys
from pathlib import Path
from mmengine.config import Config
from centermask.datasets.checking import Assignment, check, check_dataset

annotations, images, config, out = map(Path, sys.argv[1:])
check.LEAST_SHARE = 1
check.os.sched_getaffinity = lambda _: {0, 1}
with open(out, 'wb') as file:
    pickle.dump(check_dataset(annotations, images, Assignment(Config.fromfile(config))), file)
"""


def test_several_processes_find_the_same(check, content: dict, images: Path, tmp_path: Path) -> None:
    content['annotations'] += [
        {**one, 'id': i} for i, one in enumerate(OBJECTS.values()) if one['id'] == 9 and one['area'] != 'big'
    ]
    alone = check()
    arguments = [tmp_path / 'annotations.json', images, CONFIG, tmp_path / 'found']
    subprocess.run([sys.executable, '-c', IN_TWO_PROCESSES, *map(str, arguments)], check=True, timeout=120)
    assert len(alone.findings) > 10
    assert pickle.loads((tmp_path / 'found').read_bytes()) == alone


def test_sheet(check, content: dict, images: Path, tmp_path: Path) -> None:
    content['annotations'] += [{**one, 'id': 200 + i} for i, one in enumerate(OBJECTS.values())]
    (images / '2.png').unlink()
    assert draw_worst(check(), tmp_path / 'sheet.png') == 2
    with Image.open(tmp_path / 'sheet.png') as sheet:
        assert np.array(sheet).std() > 20


# What the heads make of objects


def test_objects_in_other_sizes(assignment: Assignment) -> None:
    """Training at 580 or 600: by the star recipe's rule of rounding."""
    assert assignment.sizes(640, 480) == [(800, 600), (773, 580)]
    box = np.array([[5.5, 5.5, 7.5, 7.5]])
    assert [flags.tolist() for flags in assignment.learned(box, 640, 480)] == [[False], [False]]
    # On a smaller image, which is enlarged more, it meets a location.
    assert [flags.tolist() for flags in assignment.learned(box, 160, 120)] == [[True], [True]]


def test_paper_recipe_resizes_by_its_own_rule() -> None:
    paper = Assignment(Config.fromfile(CONFIGS / 'centermask-lite_v2-19_fpn_4x_coco.py'))
    assert paper.sizes(640, 479)[0] == (801, 600)
    # Its boxes end at their last pixel, so that one of a pixel is none.
    assert not paper.learned(np.array([[4.0, 4.0, 4.5, 4.5]]), 640, 480)[0][0]


def test_config_without_fcos() -> None:
    with pytest.raises(InputError, match='has no FCOS box head'):
        Assignment(Config.fromfile(CONFIGS / 'baselines/yolact-550_r50_coco.py'))


@pytest.mark.parametrize('size', [(1, 4000), (4000, 1)])
def test_objects_on_a_line(assignment: Assignment, size: tuple[int, int]) -> None:
    box = np.array([[0.0, 0.0, *size]])
    assert assignment.learned(box, *size)[0].shape == (1,)
    assert assignment.levels(box, *size).tolist() in ([0], [1], [2])
