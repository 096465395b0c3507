"""Where the pictures come from that a file is checked and quantised by."""

from pathlib import Path

from mmengine.config import Config

from centermask.engine.configs import load_config
from centermask.export.pictures import find


def test_of_a_config(tiny_config: Path) -> None:
    cfg = load_config(tiny_config)
    assert [Path(path).parent.parent.name for path in find(None, cfg, 'train', 3)] == ['train'] * 3
    assert len(find(None, cfg, 'test', 9)) == 3  # as many as there are


def test_of_a_folder(tiny_config: Path) -> None:
    """All of it, whatever the config has."""
    folder = tiny_config.parent / 'shapes/val/images'
    assert sorted(find(str(folder), Config(), 'train', 1)) == sorted(map(str, folder.iterdir()))


def test_of_data_that_are_not_here(tiny_config: Path) -> None:
    cfg = load_config(tiny_config, {'train_dataloader.dataset.data_root': 'nowhere/'})
    assert find(None, cfg, 'train', 3) == []
