"""Two small images with an object each, in COCO's format."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_coco import PIPELINE, annotation
from mmdet.registry import DATASETS
from mmengine.logging import MMLogger
from PIL import Image

from centermask.datasets import CenterMaskCocoDataset


@pytest.fixture
def content() -> dict:
    """Two images; a cat (category 7) on the first and a dog (3) on the second. The file lists the cat first."""
    return {
        'categories': [{'id': 7, 'name': 'cat'}, {'id': 3, 'name': 'dog'}],
        'images': [{'id': i, 'file_name': f'{i}.png', 'width': 60, 'height': 40} for i in (1, 2)],
        'annotations': [annotation(101), annotation(102, image=2, category=3)],
    }


@pytest.fixture
def build(tmp_path: Path, content: dict) -> Callable[..., CenterMaskCocoDataset]:
    """Write ``content`` and its images, and read them as the data set of a config would be."""

    def build(classes: tuple[str, ...] = ('cat', 'dog'), **arguments: object) -> CenterMaskCocoDataset:
        (tmp_path / 'images').mkdir(exist_ok=True)
        for name in ('1.png', '2.png'):
            Image.new('RGB', (60, 40)).save(tmp_path / 'images' / name)
        (tmp_path / 'annotations.json').write_text(json.dumps(content))
        config = {
            'type': 'CenterMaskCocoDataset',
            'data_root': str(tmp_path),
            'ann_file': 'annotations.json',
            'data_prefix': {'img': 'images/'},
            'metainfo': {'classes': classes},
            'filter_cfg': {'filter_empty_gt': True},
            'pipeline': PIPELINE,
            **arguments,
        }
        return DATASETS.build(config)

    return build


@pytest.fixture
def warnings() -> list[str]:
    """Messages of the warnings that MMEngine's logger is given."""
    messages: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, keeper = MMLogger.get_current_instance(), Keeper(logging.WARNING)
    logger.addHandler(keeper)
    yield messages
    logger.removeHandler(keeper)
