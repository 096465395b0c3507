"""Reading configs."""

from pathlib import Path

import pytest

from centermask.engine.configs import load_config
from centermask.utils.errors import InputError


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (None, "The config {path} doesn't exist: give the path of a file, or the name of a model."),
        ('model = dict(', "The config {path} can't be read, SyntaxError: "),
        ("_base_ = './absent.py'", "The config {path} can't be read, FileNotFoundError: "),
        ('a = b', "The config {path} can't be read, NameError: "),
        ("custom_imports = dict(imports=['no_such_module'])", "The config {path} can't be read, ImportError: "),
    ],
)
def test_bad_configs(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / 'config.py'
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert str(error.value).startswith(words.format(path=path))


def test_a_checkpoint_is_no_config(tmp_path: Path) -> None:
    (tmp_path / 'model.onnx').touch()
    with pytest.raises(InputError, match=r'^.*/model\.onnx is no config: give a model or a config, and this file as'):
        load_config(tmp_path / 'model.onnx')


def test_a_config_reads_its_data(tmp_path: Path) -> None:
    path = tmp_path / 'config.py'
    path.write_text(
        f"_base_ = []\nfrom centermask.datasets import read_classes\nclasses = read_classes('{tmp_path}/a.json')\n"
    )
    with pytest.raises(InputError, match=r'^The annotation file .*a\.json does not exist'):
        load_config(path)


def test_options_are_merged(tiny_config: Path) -> None:
    cfg = load_config(tiny_config, {'model.backbone.norm_eval': True, 'param_scheduler.0.end': 7})
    assert cfg.model.backbone.norm_eval is True and cfg.param_scheduler[0].end == 7


def test_a_moved_config_is_found(tmp_path: Path) -> None:
    (tmp_path / 'paper').mkdir()
    (tmp_path / 'paper/row.py').touch()
    with pytest.raises(InputError, match=r"row\.py doesn't exist: it is at .*paper/row\.py now"):
        load_config(tmp_path / 'row.py')
