"""Configs by name."""

from pathlib import Path

import pytest

from centermask.engine.model_names import find_config, package_configs
from centermask.utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_config_is_found_by_its_name() -> None:
    """They are the repository's, and no two have one name."""
    paths = [path for path in (REPOSITORY / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert sorted(package_configs().values()) == sorted(paths)
    for path in paths:
        assert find_config(path.stem) == find_config(path.name) == find_config(path) == path


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('centermask-star_v2-39', 'centermask-star_v2-39_fpn_3x_coco'),
        ('centermask_r50', 'centermask_r50_fpn_3x_coco'),  # of 1x, 2x and 3x
        ('centermask_hrnetv2-w18', 'paper/centermask_hrnetv2-w18_fpn_1x_coco'),
        ('centermask-lite-star_v2-19-slim', 'centermask-lite-star_v2-19-slim_fpn_4x_coco'),  # which has weights
        ('tensormask_r50_fpn', 'baselines/tensormask_r50_fpn_6x_coco'),
        ('yolact-550_r50', 'baselines/yolact-550_r50_coco'),
    ],
)
def test_the_beginning_is_enough(name: str, config: str) -> None:
    assert find_config(name) == REPOSITORY / f'configs/{config}.py'


def test_a_file_goes_before_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path('centermask-star_v2-39').touch()
    assert find_config('centermask-star_v2-39') == Path('centermask-star_v2-39')


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('centermask-star', r'^centermask-star is the beginning of several models: give one of .*_v2-57, '),
        ('mask-rcnn', r'^mask-rcnn is the beginning of several models: give one of mask-rcnn_r101, mask-rcnn_x101\.$'),
        ('panoptic-centermask-lite-star_v2-19-slim', r'several models: give one of .*-slim_shapes, .*-slim_custom\.$'),
        ('centermask-star_v2-93', r"^The config centermask-star_v2-93 doesn't exist: is one of centermask-star_v2-"),
        ('photo.jpg', r"^The config photo\.jpg doesn't exist: give the path of a file, or the name of a model"),
        ('demo', r"^The config demo doesn't exist: give the path of a file"),  # which is a folder of configs/
        ('x**y.py', r"^The config x\*\*y\.py doesn't exist: give the path of a file"),
        ('', r"^The config \. doesn't exist: give the path of a file"),
        ('configs/centermask_r50_fpn_1x_coco.py', r'1x_coco\.py doesn.t exist: it is at configs/paper/centermask_r50_'),
        ('configs/absent.py', r"^The config configs/absent\.py doesn't exist: give the path of a file, or the name"),
    ],
)
def test_unknown_names(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(InputError, match=message):
        find_config(name)
