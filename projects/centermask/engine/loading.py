"""A detector in one line of Python: by the name of a model, from one's own files, or from an exported file."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from centermask.engine.configs import load_config
from centermask.engine.inferencer import CenterMaskInferencer, require_device
from centermask.engine.model_names import released_weights
from centermask.export.metadata import describe_resizing
from centermask.export.runtime import ExportedModel, is_exported
from centermask.utils.errors import InputError


def load(model: str | Path, checkpoint: str | Path | None = None, device: str | None = None) -> CenterMaskInferencer:
    """Load a detector, whose :meth:`~CenterMaskInferencer.predict` takes files and arrays.

    Args:
        model: the name of a model or the path of a config; or alone, a file that tools/export.py wrote, or a checkpoint
            in the folder of its training, which has the config.
        checkpoint: a file, or one that tools/export.py wrote; by default the released weights of the model.
        device: torch's name of it, by default the GPU where there is one.

    Raises:
        InputError: there is no such model or file, it can't be fetched, or it doesn't fit.
    """
    if device is not None:
        require_device(device)
    path = Path(model)
    if checkpoint is not None:
        cfg, weights = load_config(path), str(checkpoint)
    elif is_exported(path):
        cfg, weights = config_of_exported(path), str(path)
    elif path.suffix == '.pth':
        cfg, weights = load_config(_config_beside(path)), str(path)
    else:
        cfg, weights = load_config(path), released_weights(path)
    return CenterMaskInferencer(cfg, weights, device, mask_format='tensor')


def config_of_exported(file: str | Path) -> Config:
    """Return a config for an exported file, by which images are read and resized as the file's metadata say.

    Raises:
        InputError: the file can't be used, or its images were resized in another way.
    """
    metadata = ExportedModel(file).metadata
    cfg = load_config('centermask_v2-39' if metadata.recipe == 'paper' else 'centermask-star_v2-39')
    data = cfg.test_dataloader.dataset
    (resize,) = [step for step in data.pipeline if 'scale' in step]
    resize.scale = metadata.scale
    if describe_resizing(data.pipeline) != (metadata.scale, metadata.resize):
        raise InputError(f'{file} was exported with images resized by {metadata.resize}: give its config too.')
    data.metainfo = dict(classes=metadata.classes)
    return cfg


def _config_beside(checkpoint: Path) -> Path:
    """Return the config that a training wrote into the folder of its checkpoints."""
    if not checkpoint.is_file():
        raise InputError(f"The checkpoint {checkpoint} doesn't exist: give the path of one.")
    configs = [*checkpoint.parent.glob('*.py')]
    if len(configs) != 1:
        raise InputError(f'There are {len(configs)} configs beside {checkpoint}: give its config too, before it.')
    return configs[0]
