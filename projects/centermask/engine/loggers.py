"""Programs that record a training: TensorBoard, Weights & Biases and MLflow, through MMEngine's back ends."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.registry import VISBACKENDS
from mmengine.config import Config, ConfigDict
from mmengine.visualization import MLflowVisBackend, WandbVisBackend

from centermask.utils.errors import InputError


class Logger(NamedTuple):
    """A program, the packages that it needs, and how to look at what it recorded in a work folder."""

    packages: tuple[str, ...]
    view: str


LOGGERS = {
    'tensorboard': Logger(('tensorboard',), 'tensorboard --logdir {work_dir}'),
    'wandb': Logger(('wandb',), 'WANDB_MODE=online uploads at once, wandb sync {work_dir}/wandb/offline-run-* later'),
    'mlflow': Logger(
        ('mlflow', 'sqlalchemy', 'alembic'),
        'mlflow ui --backend-store-uri sqlite:///{work_dir}/mlflow.db (or MLFLOW_TRACKING_URI), '
        'after pip install mlflow',  # of which the extra brings mlflow-skinny alone, without pages
    ),
}
CONFIG_KEYS = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness', 'load_from')
"""Parts of a config that are recorded as parameters of MLflow, whose values are short."""


def add_loggers(cfg: Config, names: Sequence[str]) -> list[str]:
    """Let a config's training be recorded by more programs; return a line for each that says how to look at it.

    Args:
        cfg: with its work folder; changed in place.
        names: keys of ``LOGGERS``.

    Raises:
        InputError: a package is missing.
    """
    lines = []
    for name in dict.fromkeys(names):
        if missing := [package for package in LOGGERS[name].packages if find_spec(package) is None]:
            raise InputError(f'--logger {name}: {" and ".join(missing)} is missing: pip install {name}.')
        visualizer = cfg.setdefault('visualizer', ConfigDict(type='CenterMaskVisualizer'))
        backend = _backend(name, cfg)
        others = [given for given in visualizer.get('vis_backends') or [] if given['type'] != backend['type']]
        visualizer.vis_backends = [*others, backend]
        lines.append(f'Recorded by {name}: {LOGGERS[name].view.format(work_dir=cfg.work_dir)}')
    return lines


def _backend(name: str, cfg: Config) -> dict[str, Any]:
    if name == 'wandb':
        return dict(type='SteppedWandbVisBackend', init_kwargs=dict(project='centermask'))
    if name == 'mlflow':
        return dict(
            type='RenamingMLflowVisBackend',
            exp_name='centermask',
            artifact_suffix=(),  # MMEngine looks for these in the work folder, where the store is
            tracked_config_keys={key: None for key in CONFIG_KEYS if key in cfg},
        )
    return dict(type='TensorboardVisBackend')


def _work_folder(save_dir: str) -> Path:
    """Return the work folder of a back end's ``WORK_DIR/TIMESTAMP/vis_data``."""
    return Path(save_dir).absolute().parents[1]


@VISBACKENDS.register_module()
class SteppedWandbVisBackend(WandbVisBackend):
    """MMEngine's back end of Weights & Biases, with the iteration as step; MMEngine's counts its calls.

    The run lies in the work folder and has its name, and is offline unless the environment's ``WANDB_MODE`` says else.

    Args:
        save_dir: of MMEngine.
        init_kwargs: other arguments of ``wandb.init``.
    """

    def __init__(self, save_dir: str, init_kwargs: Mapping[str, Any]) -> None:
        folder = _work_folder(save_dir)
        mode = os.environ.get('WANDB_MODE', 'offline')
        super().__init__(save_dir, {'name': folder.name, 'dir': str(folder), 'mode': mode, **init_kwargs})

    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record scalars of an iteration."""
        self.experiment.log({**scalar_dict}, step=step)


@VISBACKENDS.register_module()
class RenamingMLflowVisBackend(MLflowVisBackend):
    """MMEngine's back end of MLflow, which refuses some letters of COCO's figures, such as AR@100: they become "_".

    The run has the name of the work folder, where the data base and artifacts lie unless the environment's
    ``MLFLOW_TRACKING_URI`` says where: it may hold a password, so no config does.

    Args:
        save_dir: of MMEngine.
        **kwargs: other arguments of MMEngine's.
    """

    def __init__(self, save_dir: str, **kwargs: Any) -> None:
        uri, folder = os.environ.get('MLFLOW_TRACKING_URI'), _work_folder(save_dir)
        kwargs.setdefault('run_name', folder.name)
        kwargs['artifact_location'] = None if uri else f'{folder}/mlflow_artifacts'
        super().__init__(save_dir, tracking_uri=uri or f'sqlite:///{folder}/mlflow.db', **kwargs)

    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record scalars of an iteration."""
        super().add_scalars({re.sub(r'[^\w./: -]', '_', name): value for name, value in scalar_dict.items()}, step)
