"""tools/predict.py."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from mmdet.datasets import CocoDataset
from PIL import Image
from pycocotools.coco import COCO

from centermask import CenterMaskVisualizer
from centermask.datasets.images import find_images
from centermask.engine.cli import run
from centermask.engine.image_prediction import drawing_name
from centermask.utils.coco_ids import THING_IDS
from centermask.utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def images(tiny_config: Path, tmp_path: Path) -> Path:
    """Return a folder of two images of different sizes and a text file."""
    folder = tmp_path / 'images'
    folder.mkdir()
    picture = cv2.imread(str(tiny_config.parent / 'shapes/val/images/000000.jpg'))
    cv2.imwrite(str(folder / 'b.png'), picture)
    cv2.imwrite(str(folder / 'a.JPG'), picture[:100])
    (folder / 'notes.txt').write_text('no picture')
    return folder


@pytest.fixture
def predict(
    tools: Callable, tiny_config: Path, tiny_run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> Callable:
    def call(*args: str, source: Path = images, checkpoint: Path = tiny_run / 'iter_2.pth') -> tuple[int, str, str]:
        argv = [str(source), str(tiny_config), str(checkpoint), '--device', 'cpu', '--out-dir', str(tmp_path / 'out')]
        code = run(lambda: tools('predict')([*argv, *args]))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_command(tiny_config: Path, tiny_run: Path, images: Path, tmp_path: Path) -> None:
    command = [sys.executable, 'tools/predict.py', str(images), str(tiny_config), str(tiny_run / 'iter_2.pth')]
    done = subprocess.run(
        [*command, '--out-dir', str(tmp_path / 'out')], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '2/2' in done.stdout and 'ETA' in done.stdout
    assert {p.name for p in (tmp_path / 'out').rglob('*') if p.is_file()} == {
        *('a.JPG', 'b.png', 'predictions.bbox.json', 'predictions.segm.json'),
    }


def _written(out: Path) -> tuple[dict, dict]:
    """Return the contents of the two files, which list the images."""
    boxes, masks = (json.loads((out / f'predictions.{kind}.json').read_text()) for kind in ('bbox', 'segm'))
    return boxes, masks


def test_results(predict: Callable, tmp_path: Path) -> None:
    code, said, _ = predict('--score-thr', '0')
    assert code == 0
    assert (
        'not all of the images are in the config\'s annotation file: their ids count from 1, listed under "images"'
        in said
    )
    contents = _written(tmp_path / 'out')
    for content in contents:
        assert content['images'] == [
            {'id': 1, 'file_name': 'a.JPG', 'height': 100, 'width': 160},
            {'id': 2, 'file_name': 'b.png', 'height': 160, 'width': 160},
        ]
        assert content['categories'][3] == {'id': 4, 'name': 'star'}
    COCO(str(tmp_path / 'out/predictions.segm.json'))
    boxes, masks = (content['annotations'] for content in contents)
    assert len(boxes) == len(masks) > 0
    classes = ('circle', 'triangle', 'square', 'star', 'cross')
    heights = {'a.JPG': 100, 'b.png': 160}
    assert {(box['image_id'], box['file_name']) for box in boxes} == {(1, 'a.JPG'), (2, 'b.png')}
    for box, mask in zip(boxes, masks, strict=True):
        assert {key: box[key] for key in ('image_id', 'category_id')} == {
            key: mask[key] for key in ('image_id', 'category_id')
        }
        assert box['category_name'] == classes[box['category_id'] - 1]
        x, y, w, h = box['bbox']
        assert x >= 0 and y >= 0 and w > 0 and h > 0 and y + h <= heights[box['file_name']] + 1e-3
        assert mask_utils.decode(mask['segmentation']).shape == (heights[box['file_name']], 160)
        assert 0 < box['score'] < 1
        assert mask['score'] != box['score']  # times the predicted mask IoU


def test_drawings(predict: Callable, images: Path, tmp_path: Path) -> None:
    assert predict('--score-thr', '0')[0] == 0
    drawn = cv2.imread(str(tmp_path / 'out/vis/b.png'))
    image = cv2.imread(str(images / 'b.png'))
    height, width = (round(side * 640 / max(image.shape)) for side in image.shape[:2])
    plain = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    assert drawn.shape[0] == height and not np.array_equal(drawn[:, :width], plain)
    assert predict('--score-thr', '1')[0] == 0  # again, in place of the first
    assert np.array_equal(cv2.imread(str(tmp_path / 'out/vis/b.png')), plain)


def test_ids_from_names(predict: Callable, images: Path, tmp_path: Path) -> None:
    """Images with numbers for names, as COCO's, have these ids."""
    numbered = tmp_path / 'numbered'
    numbered.mkdir()
    shutil.copy(images / 'b.png', numbered / '000000000139.png')
    assert predict(source=numbered / '000000000139.png')[0] == 0
    boxes, _ = _written(tmp_path / 'out')
    assert {box['image_id'] for box in boxes['annotations']} == {139} == {boxes['images'][0]['id']}


@pytest.mark.parametrize('source', ['config', '--data'])
def test_ids_of_the_annotation_file(source: str, predict: Callable, tiny_config: Path, tmp_path: Path) -> None:
    """Images of the validation data have the ids of its file, whatever their names say."""
    data = tmp_path / 'data'
    shutil.copytree(tiny_config.parent / 'shapes/val/images', data / 'images')
    content = json.loads((tiny_config.parent / 'shapes/val/annotations.json').read_text())
    ids = {image['id']: 1000 + i for i, image in enumerate(content['images'])}
    categories = {category['id']: 7 * category['id'] + 3 for category in content['categories']}
    for entries, key, new in (
        (content['images'], 'id', ids),
        (content['annotations'], 'image_id', ids),
        (content['categories'], 'id', categories),
        (content['annotations'], 'category_id', categories),
    ):
        for entry in entries:
            entry[key] = new[entry[key]]
    (data / 'val.json').write_text(json.dumps(content))
    args = ['--data', data]
    if source == 'config':
        names = {'data_root': data, 'ann_file': 'val.json', 'data_prefix.img': 'images/'}
        args = ['--cfg-options', *(f'test_dataloader.dataset.{key}={value}' for key, value in names.items())]
    code, said, _ = predict(*map(str, args), source=data / 'images')
    assert code == 0 and f'ids are those of {data}/val.json' in said
    coco = COCO(str(data / 'val.json'))
    found = coco.loadRes(str(tmp_path / 'out/predictions.segm.json'))
    assert len(found.anns) > 0 and set(found.getCatIds()) == set(categories.values())
    for entry in found.anns.values():
        assert coco.imgs[entry['image_id']]['file_name'] == entry['file_name']
        assert coco.cats[entry['category_id']]['name'] == entry['category_name']


def test_images_of_one_name_in_several_folders(predict: Callable, images: Path, tmp_path: Path) -> None:
    for folder in ('cam0', 'cam1/left'):
        (images / folder).mkdir(parents=True)
        shutil.copy(images / 'b.png', images / folder / 'b.png')
    assert predict()[0] == 0
    names = ['a.JPG', 'b.png', 'cam0/b.png', 'cam1/left/b.png']
    drawn = [path.relative_to(tmp_path / 'out/vis').as_posix() for path in (tmp_path / 'out/vis').rglob('*.*')]
    assert sorted(drawn) == names
    boxes, _ = _written(tmp_path / 'out')
    assert [image['file_name'] for image in boxes['images']] == names


def test_coco_ids() -> None:
    names = dict(zip(CocoDataset.METAINFO['classes'], THING_IDS, strict=True))
    assert (names['person'], names['stop sign'], names['backpack'], names['toothbrush']) == (1, 13, 27, 90)


def test_weights_alone(predict: Callable, tiny_run: Path, tmp_path: Path) -> None:
    """The config names the classes if the checkpoint doesn't."""
    torch.save(torch.load(tiny_run / 'iter_2.pth')['state_dict'], tmp_path / 'weights.pth')
    assert predict(checkpoint=tmp_path / 'weights.pth')[0] == 0
    boxes, _ = _written(tmp_path / 'out')
    assert {box['category_name'] for box in boxes['annotations']} <= {'circle', 'triangle', 'square', 'star', 'cross'}


def test_bad_images(predict: Callable, images: Path, tmp_path: Path) -> None:
    assert find_images(str(images)) == [images / 'a.JPG', images / 'b.png']
    with pytest.raises(InputError, match=r"The image or folder no\.jpg doesn't exist"):
        find_images('no.jpg')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match=r'The folder .*/empty holds no image'):
        find_images(str(tmp_path / 'empty'))


def test_unreadable_images_are_left_out(predict: Callable, images: Path, tmp_path: Path) -> None:
    """The others' results are written, and the exit code is 1."""
    (images / 'aa.jpg').write_bytes(b'no picture')
    cv2.imwrite(str(images / 'c.tiff'), np.zeros((40, 60), np.float32))
    code, said, err = predict()
    assert code == 1 and 'not read as images or videos: files that end in .txt' in said
    left_out = [line for line in err.splitlines() if line.startswith('left out: ')]
    assert 'aa.jpg could not be read, it is damaged or not an image' in left_out[0] and 'floats' in left_out[1]
    assert err.splitlines()[-1] == (
        'error: 2 of the 4 images are left out, see above why, and the results of the others are written: '
        f'{images}/aa.jpg, {images}/c.tiff.'
    )
    boxes, _ = _written(tmp_path / 'out')
    assert [image['file_name'] for image in boxes['images']] == ['a.JPG', 'b.png']
    assert {path.name for path in (tmp_path / 'out/vis').iterdir()} == {'a.JPG', 'b.png'}


def test_interrupted(predict: Callable, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done by then is written, and said."""
    draw = CenterMaskVisualizer.add_datasample

    def draw_one(self: CenterMaskVisualizer, name: str, *args: Any, **kwargs: Any) -> None:
        if name == 'b.png':
            raise KeyboardInterrupt
        draw(self, name, *args, **kwargs)

    monkeypatch.setattr(CenterMaskVisualizer, 'add_datasample', draw_one)
    code, said, _ = predict()
    assert code == 130 and f'stopped at {images}/b.png: only the results of the 1 images before it' in said
    boxes, _ = _written(tmp_path / 'out')
    assert [image['file_name'] for image in boxes['images']] == ['a.JPG']


def test_formats_and_range(predict: Callable, images: Path, tmp_path: Path) -> None:
    """Drawings are JPEG where the format isn't usually written; 12 bits in 16 are named."""
    (tmp_path / 'formats').mkdir()
    for suffix, kind in (('avif', 'AVIF'), ('gif', 'GIF'), ('jp2', 'JPEG2000')):
        Image.open(images / 'b.png').save(tmp_path / f'formats/a.{suffix}', format=kind)
    cv2.imwrite(str(tmp_path / 'formats/dark.png'), np.full((64, 64), 4095, np.uint16))
    code, _, err = predict(source=tmp_path / 'formats')
    assert code == 0 and '/formats: images of 16 bits a channel are read almost black, the brightest value of 1' in err
    drawn = sorted(path.name for path in (tmp_path / 'out/vis').iterdir())
    assert drawn == ['a.avif.jpg', 'a.gif.jpg', 'a.jp2.jpg', 'dark.png']
    assert drawing_name(Path('in/folder/image'), Path('in')) == Path('folder/image.jpg')


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (('--device', 'cuda:99'), 'The device cuda:99 is not on this machine'),
        (('--device', 'xyz'), 'The device xyz is not on this machine'),
        (('--track',), '--track and --show are for videos, and none is given'),
        (('--cfg-options', 'model.num_classes=4'), 'it was trained on 5 classes and the config has 4'),
        (('--cfg-options', 'model.backbone.arch=41'), " or '39' or '57' or '99'."),
        (('--cfg-options', 'model.test_cfg.scor_thr=0'), 'did you mean score_thr?'),
        (('--out-dir', '/proc/out'), "The folder /proc/out can't be written to"),
    ],
)
def test_bad_input(args: tuple, words: str, predict: Callable) -> None:
    code, _, err = predict(*args)
    assert code == 2 and err.splitlines()[-1].startswith('error: ') and words in err.splitlines()[-1]
    assert 'Traceback' not in err


@pytest.mark.parametrize('link', ['', 'folder', 'image'])
def test_drawings_never_replace_images(predict: Callable, images: Path, link: str, tmp_path: Path) -> None:
    """A second run on what the first one drew, by its name or a link, is refused."""
    vis = images.rename(tmp_path / 'vis')
    before = {path: path.read_bytes() for path in vis.iterdir()}
    source = tmp_path / (link or 'vis')
    if link == 'folder':
        source.symlink_to(vis)
    elif link == 'image':
        source.mkdir()
        (source / 'b.png').symlink_to(vis / 'b.png')
    code, _, err = predict('--out-dir', str(tmp_path / 'any' / '..'), source=source)
    assert code == 2 and ': drawn images go to its folder vis, where ' in err
    assert {path: path.read_bytes() for path in vis.iterdir()} == before and not (tmp_path / 'any').exists()


def test_bad_checkpoint(predict: Callable) -> None:
    code, _, err = predict(checkpoint=Path('no.pth'))
    assert code == 2 and "error: The checkpoint no.pth doesn't exist" in err
