"""Other programs that record a training."""

from pathlib import Path

import pytest
from mmengine.config import Config

from centermask.engine import loggers
from centermask.engine.loggers import add_loggers
from centermask.utils.errors import InputError


def test_records_beside_the_files_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, 'find_spec', lambda name: object())
    local = dict(type='LocalVisBackend')
    cfg = Config(dict(visualizer=dict(type='CenterMaskVisualizer', vis_backends=[local]), work_dir=str(tmp_path)))
    add_loggers(cfg, ['mlflow'])  # of a config that a training with --logger saved
    lines = add_loggers(cfg, ['tensorboard', 'mlflow', 'tensorboard'])
    assert [backend['type'] for backend in cfg.visualizer.vis_backends] == [
        'LocalVisBackend',
        'TensorboardVisBackend',
        'RenamingMLflowVisBackend',
    ]
    assert lines == [
        f'Recorded by tensorboard: tensorboard --logdir {tmp_path}',
        f'Recorded by mlflow: mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db (or MLFLOW_TRACKING_URI), '
        'after pip install mlflow',
    ]


def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match=r'^--logger wandb: wandb is missing: pip install wandb\.$'):
        add_loggers(Config(dict(work_dir=str(tmp_path))), ['wandb'])
