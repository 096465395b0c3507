"""What a training says about its data before it starts."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from centermask.datasets.checking import check_training_data
from centermask.datasets.checking import quick as quick_module

SHAPES = Path(__file__).resolve().parents[3] / 'configs/demo/centermask-lite-star_v2-19-slim_shapes.py'


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """Ten images that nobody reads, each with an object; the sixth's has another class, which the file doesn't have."""
    (tmp_path / 'train/images').mkdir(parents=True)
    outline = {'bbox': [20, 20, 60, 60], 'segmentation': [[20, 20, 80, 20, 80, 80, 20, 80]]}
    content = {
        'categories': [{'id': 1, 'name': 'cat'}],
        'images': [{'id': i, 'file_name': f'{i}.jpg', 'width': 160, 'height': 160} for i in range(10)],
        'annotations': [{'id': i + 1, 'image_id': i, 'category_id': 1 + (i == 5), **outline} for i in range(10)],
    }
    (tmp_path / 'train/annotations.json').write_text(json.dumps(content))
    for i in range(10):
        (tmp_path / f'train/images/{i}.jpg').touch()
    cfg = Config.fromfile(SHAPES)
    cfg.train_dataloader.dataset.data_root = f'{tmp_path}/'
    return cfg


def test_lost_objects_are_named(cfg: Config, tmp_path: Path) -> None:
    text = check_training_data(cfg, with_tables=False)
    assert text.splitlines()[1:] == [
        'A training would lose objects:',
        '       1  objects of a category that the file does not list: object 6',
        'Everything, images too: python tools/check_dataset.py '
        f'{tmp_path}/train/annotations.json {tmp_path}/train/images',
    ]
    assert 'all classes' in check_training_data(cfg, with_tables=True)


def test_silent_where_nothing_is_lost(cfg: Config, tmp_path: Path) -> None:
    content = json.loads((tmp_path / 'train/annotations.json').read_text())
    del content['annotations'][5]
    (tmp_path / 'train/annotations.json').write_text(json.dumps(content))
    assert check_training_data(cfg, with_tables=False) == ''
    assert check_training_data(cfg, with_tables=True).endswith('A training would lose no object.')


def test_of_many_images_some_are_looked_at(cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_module, 'SAMPLE', 5)
    assert '(5 of 10 images looked at)' in check_training_data(cfg, with_tables=False)
    assert '5 of 10 images, ' in check_training_data(cfg, with_tables=True)


def test_what_is_not_there_is_left_to_the_data_set(cfg: Config, tmp_path: Path) -> None:
    cfg.train_dataloader.dataset.data_prefix.img = 'elsewhere/'
    assert check_training_data(cfg, with_tables=True) == ''
    cfg.train_dataloader.dataset.ann_file = 'no.json'
    assert check_training_data(cfg, with_tables=True) == ''
    assert check_training_data(Config(dict(model={})), with_tables=True) == ''
