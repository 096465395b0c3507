"""The training that the same command left unfinished."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from centermask.engine.configs import load_config
from centermask.engine.unfinished import resume_unfinished


@pytest.fixture
def unfinished(tiny_run: Path, tiny_config: Path, tmp_path: Path) -> Config:
    """Return the config of a training of two iterations whose work folder has the checkpoint of the first."""
    shutil.copy2(tiny_run / 'iter_1.pth', tmp_path)
    cfg = load_config(tiny_config)
    cfg.launcher, cfg.work_dir = 'none', str(tmp_path)
    return cfg


def test_goes_on(unfinished: Config, tmp_path: Path) -> None:
    assert resume_unfinished(unfinished).startswith(
        f'{tmp_path} has an unfinished training of the same settings: it goes on after iter_1.pth.'
    )
    assert unfinished.resume and unfinished.load_from is None


def test_other_settings_begin_anew(unfinished: Config) -> None:
    unfinished.load_from = 'start.pth'
    assert 'other settings (iter_1.pth): this one begins anew; --resume' in resume_unfinished(unfinished)
    assert not unfinished.resume and unfinished.load_from == 'start.pth'


def test_file_of_another_kind_begins_anew(unfinished: Config, tmp_path: Path) -> None:
    torch.save({'state_dict': {'w': torch.ones(1)}, 'meta': {'iter': 1}, 'message_hub': 'x'}, tmp_path / 'iter_9.pth')
    assert resume_unfinished(unfinished) == '' and not unfinished.resume


def test_what_has_ended_begins_anew(unfinished: Config, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copy2(tiny_run / 'iter_2.pth', tmp_path)
    assert 'reached its end (iter_2.pth): this one begins anew' in resume_unfinished(unfinished)
    assert not unfinished.resume
