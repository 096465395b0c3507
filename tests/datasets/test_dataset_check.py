"""The findings about a data set, their severity, and the file that ``--fix`` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

from centermask.datasets.assignment import Assignment
from centermask.datasets.coco_annotations import Kind
from centermask.datasets.dataset_check import (
    Check,
    check_dataset,
    check_training_data,
    describe,
    describe_findings,
    describe_scale,
    write_usable,
)
from centermask.utils.errors import InputError, RunError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CONFIG = CONFIGS / 'centermask-lite-star_v2-19-slim_fpn_4x_coco.py'
WIDTH, HEIGHT = 640, 480


def rectangle(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def annotation(number: int, x: float, y: float, w: float, h: float, **fields: object) -> dict:
    """A rectangle on image 1, of category 7, with the given fields replaced."""
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
    (tmp_path / 'images').mkdir()
    for i in (1, 2, 3):
        Image.new('RGB', (WIDTH, HEIGHT), (60 * i, 90, 120)).save(tmp_path / 'images' / f'{i}.png')
    return tmp_path / 'images'


@pytest.fixture(scope='module')
def assignment() -> Assignment:
    return Assignment(Config.fromfile(CONFIG))


@pytest.fixture
def check(content: dict, images: Path, assignment: Assignment, tmp_path: Path) -> Callable[..., Check]:
    def check(ann_file: Path | None = None, assignment: Assignment = assignment) -> Check:
        if ann_file is None:
            ann_file = tmp_path / 'annotations.json'
            ann_file.write_text(json.dumps(content))
        return check_dataset(ann_file, images, assignment)

    return check


def kinds(check: Check) -> set[Kind]:
    return {finding.kind for finding in check.findings}


def test_counts(check, content: dict) -> None:
    content['annotations'].append(annotation(104, 5, 5, 40, 40, iscrowd=1, segmentation=None))
    found = check()
    assert found.findings == [] and not found.fails and found.lost == 0
    assert found.objects == {'cat': {'small': 1, 'large': 1}, 'dog': {'large': 1}}
    assert found.images_with == {'cat': 1, 'dog': 1}
    assert (found.empty, found.crowds) == (1, 1)
    # At 800 x 600: k = ceil(5 - log2(480000 / area)), of 25 x 25 to P3, of 400 x 375 to P4, of all to P5.
    assert found.levels == {8: 1, 16: 1, 32: 1}
    text = describe(found).splitlines()
    assert text[0].endswith('annotations.json: 3 images, 1 without objects, 1 crowds')
    assert text[3].split() == ['cat', '2', '1', '1', '0', '1']
    assert 'Outlines: 3 polygons' in text and 'Images: 3 RGB of 8 bits' in text
    assert text[-1] == 'Levels that masks are pooled from (Eq. 2): P3 1 (33%), P4 1 (33%), P5 1 (33%)'
    assert describe_findings(found.findings) == ''


CORNER = (10, 10, 40, 40)
COLUMNS = [HEIGHT * 10 + 10, *[40, HEIGHT - 40] * 39, 40]
RLE = {'size': [HEIGHT, WIDTH], 'counts': [*COLUMNS, HEIGHT * WIDTH - sum(COLUMNS)]}
OBJECTS = {
    Kind.NOT_LEARNED: annotation(9, 5.5, 5.5, 2, 2),
    Kind.BOX: annotation(9, *CORNER, bbox=[10, 10, 80, 80]),
    Kind.OUTSIDE: annotation(9, WIDTH - 20, 10, 40, 40),
    Kind.BOX_UNUSABLE: annotation(9, *CORNER, bbox=[700, 10, 40, 40]),
    Kind.UNKNOWN: annotation(9, *CORNER, category_id=99),
    Kind.FIELD: annotation(9, *CORNER, area='big'),
    Kind.NO_OUTLINE: annotation(9, *CORNER, segmentation=[]),
    Kind.RLE: annotation(9, *CORNER, segmentation={'size': [1, 1]}),
    Kind.POLYGON: annotation(9, *CORNER, segmentation=[[1, 1, 2, 2], rectangle(*CORNER)]),
    None: annotation(9, *CORNER, segmentation=RLE),
}


@pytest.mark.parametrize('kind', OBJECTS, ids=str)
def test_objects(check, content: dict, kind: Kind | None, tmp_path: Path) -> None:
    content['annotations'].append(OBJECTS[kind])
    found = check()
    # The unusable box is not that of the outline either.
    expected = {kind} - {None} | ({Kind.BOX} if kind is Kind.BOX_UNUSABLE else set())
    assert kinds(found) == expected
    dropped = {Kind.BOX_UNUSABLE, Kind.UNKNOWN, Kind.FIELD, Kind.RLE}
    assert found.lost == (kind in dropped | {Kind.NOT_LEARNED}) and found.fails == (kind is Kind.FIELD)

    write_usable(found, tmp_path / 'fixed.json')
    still = {Kind.NO_OUTLINE if kind is Kind.RLE else kind}
    still &= {Kind.NOT_LEARNED, Kind.BOX, Kind.NO_OUTLINE, Kind.OUTSIDE}
    assert kinds(check(tmp_path / 'fixed.json')) == still
    # What was right stays as it was.
    fixed = json.loads((tmp_path / 'fixed.json').read_text())
    assert fixed['annotations'][:3] == content['annotations'][:3]
    assert len(fixed['annotations']) == 3 + (kind not in (Kind.BOX_UNUSABLE, Kind.UNKNOWN, Kind.FIELD))


def _exif_rotation() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 3
    return exif


def _truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format='JPEG')
    path.write_bytes(path.read_bytes()[:20_000])


def _save(image: Image.Image, **options: object) -> Callable[[Path], None]:
    return lambda path: image.save(path, **options)


GIF = {'format': 'GIF', 'save_all': True, 'append_images': [Image.new('L', (WIDTH, HEIGHT), 9)]}
IMAGES = {
    'missing': (Path.unlink, {Kind.IMAGE}),
    'truncated': (_truncated, {Kind.IMAGE}),
    'wider': (_save(Image.new('RGB', (WIDTH + 40, HEIGHT))), {Kind.SIZE}),
    'rotated': (_save(Image.new('RGB', (WIDTH, HEIGHT)), format='JPEG', exif=_exif_rotation()), set()),
    'alpha': (_save(Image.new('RGBA', (WIDTH, HEIGHT))), set()),
    '16 bits': (_save(Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16))), {Kind.RANGE}),
    'CMYK': (_save(Image.new('CMYK', (WIDTH, HEIGHT)), format='JPEG'), {Kind.IMAGE}),
    'animated': (_save(Image.new('L', (WIDTH, HEIGHT)), **GIF), {Kind.IMAGE}),
}


@pytest.mark.parametrize('case', IMAGES)
def test_images(check, images: Path, case: str, tmp_path: Path) -> None:
    change, expected = IMAGES[case]
    change(images / '2.png')
    found = check()
    assert kinds(found) == expected
    assert found.fails == bool(expected)
    write_usable(found, tmp_path / 'fixed.json')
    fixed = json.loads((tmp_path / 'fixed.json').read_text())
    dropped = expected & {Kind.IMAGE, Kind.SIZE}
    assert kinds(check(tmp_path / 'fixed.json')) == expected - dropped
    assert [image['id'] for image in fixed['images']] == ([1, 3] if dropped else [1, 2, 3])
    assert len(fixed['annotations']) == found.listed - found.lost == (2 if dropped else 3)


def test_exif_orientation_turns_the_size(check, images: Path) -> None:
    """Training reads images upright, so a file of 480 x 640 that is turned by 90 degrees fits."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (HEIGHT, WIDTH)).save(images / '2.png', format='JPEG', exif=exif)
    found = check()
    assert found.findings == [] and found.images == {'RGB of 8 bits': 3, 'turned by EXIF': 1}


def test_max_pixels_are_those_of_training(check, images: Path, tmp_path: Path) -> None:
    Image.new('RGB', (WIDTH, HEIGHT + 2)).save(images / '2.png')
    cfg = Config.fromfile(CONFIG)
    data = cfg.train_dataloader.dataset
    data.update(max_pixels=WIDTH * HEIGHT, data_root='', ann_file=f'{tmp_path}/annotations.json')
    data.update(data_prefix={'img': f'{images}/'}, metainfo={'classes': ('cat', 'dog')})
    assert [(f.kind, f.where) for f in check(assignment=Assignment(cfg)).findings] == [(Kind.IMAGE, '2.png')]
    with pytest.raises(InputError, match=r'2\.png has 640x482 pixels, more than the 307200'):  # as training has it
        DATASETS.build(data)[1]


@pytest.mark.parametrize('key', ['categories', 'images', 'annotations'])
def test_nothing_to_train_on(check, content: dict, key: str, tmp_path: Path) -> None:
    content[key] = []
    found = check()
    assert found.fails and Kind.NOTHING in kinds(found)
    with pytest.raises(RunError, match=r'--fix .*fixed\.json is not written: no object would be left'):
        write_usable(found, tmp_path / 'fixed.json')
    assert not (tmp_path / 'fixed.json').exists()


def test_the_original_stays(check, tmp_path: Path) -> None:
    found = check()
    before = (tmp_path / 'annotations.json').read_bytes()
    (tmp_path / 'link.json').symlink_to('annotations.json')
    with pytest.raises(InputError, match=r'link\.json is the file that is checked'):
        write_usable(found, tmp_path / 'link.json')
    assert (tmp_path / 'annotations.json').read_bytes() == before


def test_findings_are_summed_up_with_three_examples(check, content: dict) -> None:
    content['annotations'] += [annotation(200 + i, *CORNER, segmentation=[], bbox=[]) for i in range(9)]
    content['annotations'].append(annotation(300, *CORNER, bbox=[10, 10, 80, 80]))
    assert describe_findings(check().findings).splitlines() == [
        'A training would lose objects:',
        f'    9 {Kind.NOWHERE.words}: object 200 on 1.png, object 201 on 1.png, object 202 on 1.png and 6 more',
        'Worth a look:',
        '    1 objects whose box is not that of their outline: object 300 on 1.png',
    ]


def test_limits_of_the_config(check, content: dict) -> None:
    content['annotations'] += [annotation(200 + i, 30 * (i % 20), 25 * (i // 20), 20, 20) for i in range(148)]
    text = describe_findings(check().findings)
    assert 'model.test_cfg.max_per_img=50 leaves out 100 of 151 objects (1 images hold more, up to 150)' in text
    assert 'model.train_cfg.sampler.num=128 leaves out 22 of 151 objects (1 images hold more, up to 150)' in text


def test_size_for_small_objects(check, content: dict, assignment: Assignment) -> None:
    """Squares of 3 pixels get 3.75 at 800 x 600. A location is in each that is 8 pixels wide, the stride of P3."""
    assert describe_scale(check(), assignment) == ''
    content['annotations'] += [annotation(200 + i, 31.3 * i, 7.7 * i, 3, 3) for i in range(15)]
    found = check()
    assert found.lost == found.not_learned > 2
    assert describe_scale(found, assignment).startswith('With images resized to 2 times the size, scale=(2000, 1200)')


# The FCOS head and Eq. 2


def test_objects_in_other_sizes(assignment: Assignment) -> None:
    """Training at 580 or 600: by the CenterMask* recipe's rule of rounding."""
    assert assignment.sizes(640, 480) == [(800, 600), (773, 580)]
    box = np.array([[5.5, 5.5, 7.5, 7.5]])
    assert not assignment.learned(box, 640, 480)[0]
    assert assignment.learned(box, 160, 120)[0], 'a smaller image is enlarged more, so that it meets a location'


def test_object_whose_locations_all_learn_smaller_ones(assignment: Assignment) -> None:
    boxes = np.array([[400.0, 300, 420, 320], [400, 300, 420, 320]])
    assert assignment.learned(boxes, 640, 480).sum() == 1


def test_paper_recipe_resizes_by_its_own_rule() -> None:
    paper = Assignment(Config.fromfile(CONFIGS / 'centermask-lite_v2-19_fpn_4x_coco.py'))
    assert paper.sizes(640, 479)[0] == (801, 600)
    # Its boxes end at their last pixel, so that a box of one pixel is empty.
    assert not paper.learned(np.array([[4.0, 4.0, 4.5, 4.5]]), 640, 480)[0]


def test_config_without_fcos() -> None:
    with pytest.raises(InputError, match='has no FCOS box head'):
        Assignment(Config(dict(model=dict(bbox_head=dict(type='YOLACTHead')))))


# Before a training


@pytest.fixture
def cfg(check, content: dict, images: Path, tmp_path: Path) -> Config:
    """The config of a training on this data, of which an object has a category that the file doesn't have."""
    content['annotations'].append(annotation(6, 10, 10, 40, 40, category_id=99))
    check()
    cfg = Config.fromfile(CONFIG)
    data = cfg.train_dataloader.dataset
    data.update(data_root=f'{tmp_path}/', ann_file='annotations.json', data_prefix={'img': 'images/'})
    return cfg


def test_a_training_prints_the_objects_that_it_would_lose(cfg: Config, tmp_path: Path) -> None:
    assert check_training_data(cfg, with_tables=False).splitlines() == [
        f'{tmp_path}/annotations.json:',
        'A training would lose objects:',
        '    1 objects of an image or category that the file does not list: object 6',
        f'To check all, images too: python tools/check_dataset.py {tmp_path}/annotations.json {tmp_path}/images',
    ]
    assert 'all classes' in check_training_data(cfg, with_tables=True)


def test_a_training_prints_nothing_where_nothing_is_lost(cfg: Config, content: dict, tmp_path: Path) -> None:
    del content['annotations'][3]
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    assert check_training_data(cfg, with_tables=False) == ''
    assert check_training_data(cfg, with_tables=True).endswith('A training would lose no object.')


def test_a_training_names_images_turned_or_dark(cfg: Config, images: Path) -> None:
    """On a sample of the images, before anything is built."""
    for path in images.iterdir():
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), 4095, np.uint16))
    assert 'images of 16 bits a channel are read almost black' in check_training_data(cfg, with_tables=False)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in images.iterdir():
        Image.new('RGB', (WIDTH, HEIGHT)).save(path, format='JPEG', exif=exif)
    with pytest.raises(InputError, match=f'is {HEIGHT}x{WIDTH} pixels once turned by its EXIF orientation 6'):
        check_training_data(cfg, with_tables=False)


def test_missing_data_are_left_to_the_data_set(cfg: Config) -> None:
    cfg.train_dataloader.dataset.data_prefix.img = 'elsewhere/'
    assert check_training_data(cfg, with_tables=True) == ''
    assert check_training_data(Config(dict(model={})), with_tables=True) == ''
