"""Exported files, run by ONNX Runtime or OpenVINO on NumPy arrays."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from centermask.export.metadata import Metadata
from centermask.export.signal_stack import preserve_sigaltstack
from centermask.utils.errors import InputError

BACKENDS = {'.onnx': 'onnxruntime', '.xml': 'openvino'}


class Detections(NamedTuple):
    """The detections of one image, by falling score."""

    boxes: np.ndarray  # (D, 4), x1, y1, x2, y2 in pixels
    labels: np.ndarray  # (D,)
    scores: np.ndarray  # (D,)
    mask_scores: np.ndarray  # (D,)
    masks: np.ndarray  # (D, 28, 28) probabilities in the boxes, or (D, H, W) of 0 and 1 in the image


Run = Callable[[list[str], dict[str, np.ndarray]], list[np.ndarray]]
"""A runtime's call: names of outputs and inputs by their names → outputs."""


class ExportedModel:
    """A file that tools/export.py wrote.

    Args:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` beside it.
        backend: ``'onnxruntime'`` or ``'openvino'``, which reads ONNX files too; by default the file's own.
        threads: number of threads; by default the runtime's own choice.

    Raises:
        InputError: the file is missing, damaged or without metadata, or the runtime isn't installed.
    """

    def __init__(self, path: str | Path, backend: str | None = None, threads: int | None = None) -> None:
        self.path = str(path)
        if not is_exported(path):
            raise InputError(f'The file {path} is no exported model: its name would end in {" or ".join(BACKENDS)}.')
        if not Path(path).is_file():
            raise InputError(f"The exported model {path} doesn't exist: give the path of a file.")
        self.backend = backend or BACKENDS[Path(path).suffix]
        open_file = _open_onnxruntime if self.backend == 'onnxruntime' else _open_openvino
        self.metadata, self._run = open_file(self.path, threads)

    def run(self, images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of the file by their names.

        Args:
            images: (N, 3, H, W) float32, normalised and padded, or (N, H, W, 3) uint8 if the metadata say
                ``preprocess``.
            sizes: height and width of each image without padding, (N, 2).

        Raises:
            InputError: the runtime fails.
        """
        names = [*Detections._fields] + ([] if self.metadata.detections else ['image_index'])
        inputs = {'images': np.ascontiguousarray(images), 'sizes': np.asarray(sizes, np.int64)}
        try:
            return dict(zip(names, self._run(names, inputs), strict=True))
        except Exception as error:  # of many types, none of them public
            raise InputError(
                f'{self.backend} fails to run {self.path} on images of shape {images.shape}: '
                f'{" ".join(str(error).split())[:200]}'
            ) from error

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> list[Detections]:
        """Return the detections of each image, boxes in its pixels; arguments and errors as in :meth:`run`."""
        outputs = self.run(images, sizes)
        if self.metadata.detections:  # a fixed number, of which some are missing
            chosen = [(i, labels >= 0) for i, labels in enumerate(outputs['labels'])]
        else:
            chosen = [(outputs['image_index'] == i,) for i in range(len(images))]  # type: ignore[misc]
        return [Detections(*(outputs[name][index] for name in Detections._fields)) for index in chosen]


def is_exported(path: str | Path) -> bool:
    """Return whether a file is an exported model, by its name."""
    return Path(path).suffix in BACKENDS


def require(package: str) -> Any:
    """Import a package of the extra ``export``.

    Raises:
        InputError: it isn't installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{package} isn't installed, which exported models need: pip install 'centermask[export]'."
        ) from error


def _open_onnxruntime(path: str, threads: int | None) -> tuple[Metadata, Run]:
    onnxruntime = require('onnxruntime')
    if Path(path).suffix != '.onnx':
        raise InputError(f"ONNX Runtime can't read {path}, which is no ONNX file: export with --format onnx.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as exceptions anyway
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(path, options, providers=onnxruntime.get_available_providers())
    except Exception as error:  # of many types, none of them public
        raise _damaged(path) from error
    return Metadata.read(session.get_modelmeta().custom_metadata_map, path), session.run


@preserve_sigaltstack()
def _open_openvino(path: str, threads: int | None) -> tuple[Metadata, Run]:
    openvino = require('openvino')
    core = openvino.Core()
    try:
        model = core.read_model(path)
    except Exception as error:
        if 'DeformConv' in str(error):
            raise InputError(f"OpenVINO doesn't run the deformable convs of {path}: use ONNX Runtime.") from error
        raise _damaged(path) from error
    if Path(path).suffix == '.onnx':  # whose metadata OpenVINO doesn't read
        entries = require('onnx').load(path, load_external_data=False).metadata_props
        strings = {entry.key: entry.value for entry in entries}
    else:
        keys = [field.name for field in fields(Metadata) if model.has_rt_info(['centermask', field.name])]
        strings = {key: str(model.get_rt_info(['centermask', key]).value) for key in keys}
    metadata = Metadata.read(strings, path)
    # Without this hint OpenVINO computes in bfloat16 where the CPU can.
    settings: dict[str, Any] = {'INFERENCE_PRECISION_HINT': 'bf16' if metadata.precision == 'half' else 'f32'}
    if threads:
        settings['INFERENCE_NUM_THREADS'] = threads
    compiled = core.compile_model(model, 'CPU', settings)

    def run(names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        outputs = compiled(inputs, share_inputs=True)
        return [outputs[name] for name in names]

    return metadata, run


def _damaged(path: str) -> InputError:
    return InputError(
        f'The exported model {path} is damaged or no model: export the checkpoint again by tools/export.py.'
    )
