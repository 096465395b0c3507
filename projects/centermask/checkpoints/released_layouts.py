"""Released files in MMDetection's own loaders: ``init_detector`` and ``DetInferencer``.

These hand what a file holds to the model's ``_load_from_state_dict``, so the model renames the tensors there. Local
files they read with ``torch.load``, which runs no code of a file; links to released files with this package's reader,
which MMEngine finds by the links' beginnings. Where tensors don't fit they only warn.
"""

from __future__ import annotations

from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.models.detectors import SingleStageDetector
from mmengine.runner.checkpoint import CheckpointLoader, load_from_http

from centermask.baselines.tensormask import TensorMask
from centermask.checkpoints.layouts import from_release
from centermask.checkpoints.metafile import find_release
from centermask.checkpoints.reading import read, weights_of
from centermask.detector import CenterMask
from centermask.panoptic_centermask import PanopticCenterMask


def rename_released(model: CenterMask | TensorMask, state_dict: dict[str, Any]) -> None:
    """Rename the tensors of a released file to the model's, in place; other state dicts stay as they are.

    Args:
        model: what they are loaded into.
        state_dict: tensors by name, or what else a released file holds, with the tensors under ``model``.
    """
    if state_dict.keys() & dict(model.named_parameters()).keys():
        return  # MMDetection's layout
    contents = weights_of(state_dict)
    translation = from_release(contents.weights, isinstance(model, PanopticCenterMask)) if contents else None
    if translation:
        state_dict.clear()
        state_dict.update({**translation.weights, **translation.unknown})


def _load_from_state_dict(self: CenterMask | TensorMask, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    if not prefix:
        rename_released(self, state_dict)
    SingleStageDetector._load_from_state_dict(self, state_dict, prefix, *args)


# Set here, so that the models' own files know nothing of released layouts.
for model_class in (CenterMask, TensorMask):
    model_class._load_from_state_dict = _load_from_state_dict  # type: ignore[method-assign]


_HOSTS = [
    'https://dl.dropbox.com/s/',
    'https://www.dropbox.com/s/',
    'https://dl.fbaipublicfiles.com/detectron2/TensorMask/',
]


@CheckpointLoader.register_scheme(prefixes=_HOSTS)
def load_from_release(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load a released file from where it can be had; other files of these hosts as MMEngine does.

    Args:
        filename: the link.
        map_location: as for ``torch.load``.

    Raises:
        InputError: a released file can't be fetched or read.
    """
    if find_release(filename) is None:
        return load_from_http(filename, map_location)
    weights = read(filename, map_location or 'cpu').weights
    return {'state_dict': weights, 'meta': {'dataset_meta': dict(CocoDataset.METAINFO)}}
