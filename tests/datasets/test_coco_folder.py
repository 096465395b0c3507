"""Which files of a folder train and validate, how one file is split, and every way a folder can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from centermask.datasets import read_classes
from centermask.datasets.coco_folder import CocoFolder, find_data
from centermask.utils.errors import InputError

OUTLINE = {'segmentation': [[1, 1, 6, 1, 6, 6]]}


def content(ids: Sequence[int | str], classes: Sequence[str] = ('cat', 'dog'), empty: Sequence[int] = ()) -> dict:
    """An object on each image, of the classes in turn, but none on the ``empty`` ones."""
    return {
        'categories': [{'id': 9 - i, 'name': name} for i, name in enumerate(classes)],
        'images': [{'id': i, 'file_name': f'{i}.jpg', 'width': 8, 'height': 8} for i in ids],
        'annotations': [
            {'id': n, 'image_id': i, 'category_id': 9 - n % len(classes), 'bbox': [1, 1, 5, 5], **OUTLINE}
            for n, i in enumerate(ids)
            if i not in empty
        ],
    }


@pytest.fixture
def put(tmp_path: Path) -> Callable:
    """Write an annotation file, and its images into a folder."""

    def put(name: str, of: dict, images: str | None = None) -> None:
        (tmp_path / 'DIR' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'DIR' / name).write_text(json.dumps(of))
        for image in of['images'] if images is not None else ():
            path = tmp_path / 'DIR' / images / image['file_name']
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return put


@pytest.fixture
def find(tmp_path: Path) -> Callable[..., CocoFolder]:
    return lambda **arguments: find_data(tmp_path / 'DIR', tmp_path / 'run', **arguments)


PLAIN = ('train.json', 'val.json')
ROBOFLOW = ('train/_annotations.coco.json', 'valid/_annotations.coco.json')
YEAR = ('annotations/instances_train2017.json', 'annotations/instances_val2017.json')


@pytest.mark.parametrize(
    ('files', 'folders'),
    [
        (PLAIN, ('train', 'val')),
        (PLAIN, ('images', 'images')),
        (PLAIN, ('', '')),
        (YEAR, ('train2017', 'val2017')),
        (YEAR, ('images/train2017', 'images/val2017')),
        (ROBOFLOW, ('train', 'valid')),
        (('train/_annotations.coco.json', 'val/_annotations.coco.json'), ('train', 'val')),
        (('train/annotations.json', 'validation/annotations.json'), ('train/images', 'validation/images')),
        (('train/labels.json', 'val/labels.json'), ('train/data', 'val/data')),
        (('annotations/train.json', 'annotations/val.json'), ('images/train', 'images/val')),
        (
            ('annotations/instances_Train.json', 'annotations/instances_Validation.json'),
            ('images/Train', 'images/Validation'),
        ),
        (('annotations/train/coco.json', 'annotations/val/coco.json'), ('images/train', 'images/val')),
        (('cats_train.json', 'cats-valid.json'), ('train/images', 'valid/images')),
        (('instances_train2017.json', 'instances_val2017.json'), ('train2017', 'val2017')),
    ],
)
def test_layouts(put, find, tmp_path: Path, files: tuple[str, str], folders: tuple[str, str]) -> None:
    put(files[0], content(range(6), empty=[2]), folders[0])
    put(files[1], content(range(6, 9)), folders[1])
    data = find()
    for split, file, folder, ids in zip(
        (data.train, data.val), files, folders, ([0, 1, 3, 4, 5], [6, 7, 8]), strict=True
    ):
        assert (split.ann_file, split.images) == (tmp_path / 'DIR' / file, tmp_path / 'DIR' / folder)
        assert split.image_ids == ids
    assert data.classes == ('dog', 'cat') and data.remarks == []


@pytest.mark.parametrize(
    ('file', 'images'),
    [
        ('annotations/instances_default.json', 'images/default'),  # as CVAT exports
        ('annotations/instances_default.json', 'images'),
        ('result.json', 'images'),  # as Label Studio does
        ('labels.json', 'data'),  # as FiftyOne does
        ('unpacked/here/data.json', 'unpacked/here'),
    ],
)
def test_layouts_of_one_file(put, find, tmp_path: Path, file: str, images: str) -> None:
    put(file, content(range(4)), images)
    data = find()
    assert data.train.images == data.val.images == tmp_path / 'DIR' / images
    assert f'DIR/{file} is split by image' in data.remarks[0]


def test_other_files_beside_the_annotations(put, find, tmp_path: Path) -> None:
    """Roboflow's test part, COCO's captions, what another program keeps."""
    for name in (*ROBOFLOW, 'test/_annotations.coco.json', 'annotations/captions_train.json', 'info.json'):
        put(name, content(range(2) if 'train' in name else range(2, 4)), str(Path(name).parent))
    data = find()
    assert [split.ann_file.parent.name for split in (data.train, data.val)] == ['train', 'valid']
    assert data.remarks == []


def test_test_data_without_validation_data_are_left_alone(put, find) -> None:
    put('train.json', content(range(5)), 'train')
    put('test.json', content(range(5, 9)), 'test')
    data = find()
    assert len(data.train.image_ids) + len(data.val.image_ids) == 5
    assert len(data.remarks) == 2 and 'DIR/test.json is left out' in data.remarks[1]


@pytest.mark.parametrize('file', ['test.json', 'test/_annotations.coco.json'])
def test_test_data_alone_are_enough_to_test(put, find, file: str) -> None:
    put(file, content(range(3)), 'test')
    assert find(training=False).val.image_ids == [0, 1, 2]


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_byte_order_mark(put, find, tmp_path: Path, encoding: str) -> None:
    put('train.json', content(range(3), classes=['Äpfel']), 'train')
    path = tmp_path / 'DIR/train.json'
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding=encoding)
    assert find().classes == ('Äpfel',)


def test_ids_of_both_kinds_survive_the_split(put, find) -> None:
    of = content(range(6), classes=['cat'])
    for entry in of['annotations'][::2]:
        entry['image_id'] = str(entry['image_id'])
    put('train.json', of, 'train')
    data = find()
    assert data.train.objects.total() + data.val.objects.total() == 6


def test_folder_that_holds_most_images(put, find, tmp_path: Path) -> None:
    """The first image of the file is missing, and another folder has an image of the same name as one."""
    put('train.json', content(range(20)), 'images')
    put('val.json', content(range(3, 6)), 'val')
    (tmp_path / 'DIR/images/0.jpg').unlink()
    assert find().train.images == tmp_path / 'DIR/images'


def test_images_in_folders_that_the_file_does_not_name(put, find, tmp_path: Path) -> None:
    """Found by names that no two share, whatever their case and Unicode form."""
    of = content(range(4))
    of['images'][3]['file_name'] = 'train2017/Ä.JPG'
    put('train.json', of, 'scans')
    for i, name in enumerate(('a/0.jpg', 'a/1.jpg', 'b/2.jpg', 'b/A\N{COMBINING DIAERESIS}.jpg')):
        target = tmp_path / 'DIR/pictures' / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'DIR/scans' / of['images'][i]['file_name']).rename(target)
    put('val.json', content(range(4, 6)), 'val')
    data = find()
    train = data.train
    assert len(data.remarks) == 1 and 'DIR/train.json lie in other folders than "file_name" says' in data.remarks[0]
    assert train.ann_file == tmp_path / 'run/data/train.json' and train.images == tmp_path / 'DIR'
    named = json.loads(train.ann_file.read_text())
    assert [image['file_name'] for image in named['images']] == [
        'pictures/a/0.jpg',
        'pictures/a/1.jpg',
        'pictures/b/2.jpg',
        'pictures/b/A\N{COMBINING DIAERESIS}.jpg',
    ]
    assert named['annotations'] == of['annotations']


def test_category_that_groups_the_others_is_no_class(put, find) -> None:
    """Roboflow's files begin with one; a parent with objects is a class."""
    for name, ids in zip(ROBOFLOW, (range(4), range(4, 7)), strict=True):
        of = content(ids)
        of['categories'] = [
            {'id': 0, 'name': 'pets', 'supercategory': 'none'},
            {**of['categories'][0], 'supercategory': 'pets'},
            {**of['categories'][1], 'supercategory': 'cat'},
        ]
        put(name, of, str(Path(name).parent))
    data = find()
    assert data.classes == ('dog', 'cat')
    assert data.remarks == ['pets only groups other categories and has no objects: it is not a class.']


@pytest.mark.parametrize('used', [1, 0])
def test_group_of_one_class_with_its_name(put, find, used: int) -> None:
    of = content(range(4), classes=['cat'])
    of['categories'] = [
        {'id': 0, 'name': 'cat', 'supercategory': 'none'},
        {'id': 1, 'name': 'cat', 'supercategory': 'cat'},
    ]
    for entry in of['annotations']:
        entry['category_id'] = used
    put('train.json', of, 'train')
    if used == 0:
        with pytest.raises(InputError, match='has the name cat, which another entry has too'):
            find()
        return
    data = find()
    assert data.classes == ('cat',) and data.train.objects.total() + data.val.objects.total() == 4
    assert read_classes(str(data.val.ann_file)) == ('cat',)


def test_validation_data_without_objects(put, find, tmp_path: Path) -> None:
    put('train.json', content(range(3)), 'train')
    put('val.json', content(range(3, 6), empty=range(3, 6)), 'val')
    assert find().remarks == [
        f'{tmp_path}/DIR/val.json has no objects to validate on: the AP will be undefined, which is shown as -1.'
    ]


def test_one_file_is_split_by_image(put, find, tmp_path: Path) -> None:
    put('anything.json', content(range(300), empty=range(100)), 'images')
    before = sorted((tmp_path / 'DIR').rglob('*'))
    data = find()
    parts = [json.loads(split.ann_file.read_text()) for split in (data.train, data.val)]
    ids = [{image['id'] for image in part['images']} for part in parts]
    assert not ids[0] & ids[1] and ids[0] | ids[1] == set(range(300))
    assert len(ids[1]) == 40
    for part, split, of_part in zip(parts, (data.train, data.val), ids, strict=True):
        assert {a['image_id'] for a in part['annotations']} == {i for i in of_part if i >= 100} == set(split.image_ids)
        assert split.images == tmp_path / 'DIR/images' and split.ann_file.parent == tmp_path / 'run/data'
    assert sorted((tmp_path / 'DIR').rglob('*')) == before
    assert len(data.remarks) == 1 and 'is split by image: ' in data.remarks[0]
    # A tenth more images: few of the others change parts.
    put('anything.json', content(range(320), empty=range(100)))
    more = {image['id'] for image in json.loads(find().val.ann_file.read_text())['images']}
    assert len(ids[1] - more) <= 4


@pytest.mark.parametrize('ids', [('a', 'b'), (1, 2), (5, 6, 7)])
def test_few_images_leave_no_part_empty(put, find, ids: tuple) -> None:
    put('train.json', content(ids, classes=['cat']), 'train')
    data = find()
    assert data.train.image_ids and data.val.image_ids
    assert sorted(data.train.image_ids + data.val.image_ids) == list(ids)


def test_validation_data_alone_are_enough_to_test(put, find) -> None:
    put('val.json', content(range(3)), 'val')
    data = find(training=False)
    assert data.train is None and data.val.image_ids == [0, 1, 2]
    with pytest.raises(InputError, match=r'val\.json has no training data beside it, add train\.json'):
        find()


def test_images_in_both_parts_are_named(put, find) -> None:
    put('train.json', content(range(4)), 'images')
    put('val.json', content(range(3, 6)), 'images')
    assert find().remarks == ['1 images are in the training and in the validation data: the AP will be too high.']


def test_classes_of_the_validation_data_alone(put, find, tmp_path: Path) -> None:
    """Their objects are counted; a class without objects is nothing to speak of."""
    put('train.json', content(range(4), classes=['cat', 'dog']), 'train')
    val = content(range(5), classes=['cat', 'dog', 'bird'])
    val['categories'].append({'id': 1, 'name': 'fish'})
    put('val.json', val, 'val')
    data, folder = find(), tmp_path / 'DIR'
    assert data.classes == ('dog', 'cat') and data.remarks == [
        f'1 of the 5 objects of {folder}/val.json are of bird, which {folder}/train.json lacks: '
        'they are left out of the validation.'
    ]


def _two_files(put: Callable, **changes: dict) -> None:
    for name in ('train', 'val'):
        put(f'{name}.json', {**content([1, 2]), **changes.get(name, {})}, name)


WRONG = {
    'no folder': (lambda put: None, r'DIR: there is no such folder, name one that holds train\.json'),
    'empty': (lambda put: put('images/x.txt', {'images': []}), 'no annotations there, it must hold train.json and'),
    'several files': (
        lambda put: [put(name, content([1, 2]), '') for name in ('a.json', 'b.json')],
        r'a\.json, .*b\.json could each be the annotations',
    ),
    'several years': (
        lambda put: [put(f'annotations/instances_train{year}.json', content([1, 2]), '') for year in (2014, 2017)],
        r'instances_train2014\.json, .*2017\.json could each be the annotations',
    ),
    'a list': (lambda put: put('train.json', []), r'train\.json is not in COCO format: it must be an object'),
    'no images': (lambda put: put('train.json', {**content([]), 'images': []}), r'train\.json lists no images'),
    'images elsewhere': (lambda put: put('train.json', content([1, 2]), '../photos'), r'one is 1\.jpg, are in none of'),
    'labelme': (
        lambda put: [put(f'{name}.json', {'shapes': [], 'imagePath': 'x.jpg'}) for name in ('a', 'b')],
        r'in the format of LabelMe, convert them .* && labelme2coco \. \.',
    ),
    'labelme in parts': (
        lambda put: [put(f'{part}/a.json', {'shapes': [], 'imagePath': 'x.jpg'}) for part in ('train', 'val')],
        r'in the format of LabelMe, .* cd .*/train && labelme2coco',
    ),
    'one image': (lambda put: put('train.json', content([1]), ''), r'has 1 images with objects, and some must be kept'),
    'no objects': (lambda put: put('train.json', content([1, 2], empty=[1, 2]), ''), 'has 0 images with objects'),
    'other classes': (
        lambda put: _two_files(put, val={'categories': [{'id': 9, 'name': 'cat'}]}),
        r'val\.json has no category dog, which .*train\.json has: give both',
    ),
}


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        (
            'annotations.xml',
            '<?xml version="1.0"?>\n<annotations>',
            r'format of CVAT, .* datum convert -i \S+DIR -if cvat',
        ),
        ('Annotations/1.xml', '<annotation><folder>', r'format of Pascal VOC, .* datum convert -i \S+DIR -if voc'),
        ('labels/1.txt', '0 0.1 0.1 0.9 0.1 0.9 0.9', r'1\.txt seems to be in the format of YOLO, add data\.yaml'),
    ],
)
def test_formats_of_others_are_named(put, find, tmp_path: Path, name: str, text: str, words: str) -> None:
    put('readme.md', {})
    (tmp_path / 'DIR' / name).parent.mkdir(exist_ok=True)
    (tmp_path / 'DIR' / name).write_text(text)
    with pytest.raises(InputError, match=words):
        find()


@pytest.mark.parametrize('case', WRONG)
def test_wrong_folder_is_one_sentence(put, find, case: str, tmp_path: Path) -> None:
    prepare, words = WRONG[case]
    prepare(put)
    with pytest.raises(InputError, match=words) as caught:
        find()
    assert 'DIR' in str(caught.value) and '\n' not in str(caught.value)
    assert not (tmp_path / 'run').exists()
