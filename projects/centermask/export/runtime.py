"""Exported files, run by ONNX Runtime or OpenVINO on NumPy arrays."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from centermask.export.metadata import Metadata
from centermask.export.signal_stack import kept_signal_stack
from centermask.utils.errors import InputError

SUFFIXES = {'.onnx': 'onnxruntime', '.xml': 'openvino'}


class Detections(NamedTuple):
    """Of one image, by falling score."""

    boxes: np.ndarray  # (D, 4), x1, y1, x2, y2 in pixels
    labels: np.ndarray  # (D,)
    scores: np.ndarray  # (D,)
    mask_scores: np.ndarray  # (D,)
    masks: np.ndarray  # (D, 28, 28) probabilities in the boxes, or (D, H, W) of 0 and 1 in the image


class ExportedModel:
    """A file that tools/export.py wrote.

    Args:
        path: ``.onnx`` or ``.xml`` (which has its ``.bin`` beside it).
        backend: ``'onnxruntime'`` or ``'openvino'``, which reads ONNX files too; by default the file's own.
        threads: how many, by default as many as the runtime likes.

    Raises:
        InputError: the file is missing, damaged or without metadata, or the runtime isn't installed.
    """

    def __init__(self, path: str | Path, backend: str | None = None, threads: int | None = None) -> None:
        self.path = str(path)
        if not is_exported(self.path):
            raise InputError(f'The file {path} is no exported model: its name would end in {" or ".join(SUFFIXES)}.')
        if not Path(path).is_file():
            raise InputError(f"The exported model {path} doesn't exist: give the path of a file.")
        self.backend = backend or SUFFIXES[Path(path).suffix]
        opened = _open_onnxruntime if self.backend == 'onnxruntime' else _open_openvino
        self.metadata, inputs, outputs, self._run = opened(self.path, threads)
        self._labels = range(len(self.metadata.classes))
        expected = {*Detections._fields} | ({'image_index'} if not self.metadata.detections else set())
        if inputs != {'images', 'sizes'} or outputs != expected:
            raise InputError(
                f"The exported model {path} takes {_listed(inputs)} and gives {_listed(outputs)}, which isn't what its "
                'metadata promise: export the checkpoint again by tools/export.py.'
            )

    def run(self, images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """The file's outputs by their names.

        Args:
            images: (N, 3, H, W) float32, normalised and padded; (N, H, W, 3) uint8 where the metadata say
                ``preprocess``.
            sizes: height and width of each image without its padding, (N, 2).
        """
        return self._run({'images': np.ascontiguousarray(images), 'sizes': np.asarray(sizes, np.int64)})

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> list[Detections]:
        """Each image's detections, boxes in its pixels; arguments as :meth:`run` takes them.

        Raises:
            InputError: the file doesn't compute what its metadata promise.
        """
        try:
            outputs = self.run(images, sizes)
        except Exception as error:  # of many kinds, none of them public
            raise self._broken(' '.join(str(error).split())[:200]) from error
        self._check_shapes(outputs, len(images), sizes)
        found = []
        for i in range(len(images)):
            if self.metadata.detections:
                parts = [outputs[name][i][outputs['labels'][i] >= 0] for name in Detections._fields]
            else:
                parts = [outputs[name][outputs['image_index'] == i] for name in Detections._fields]
            found.append(Detections(*parts))
            self._check_values(found[-1])
        return found

    def _check_shapes(self, outputs: dict[str, np.ndarray], count: int, sizes: np.ndarray) -> None:
        """Raise an :class:`InputError` where an output isn't an array of its kind for these images."""
        first = outputs['labels'].shape
        if len(first) != (2 if self.metadata.detections else 1) or (self.metadata.detections and first[0] != count):
            raise self._broken(f'labels is {first}')
        for name, array in outputs.items():
            rest = array.shape[len(first) :]
            if name == 'masks':
                least = np.max(sizes, axis=0, initial=1) if self.metadata.full_masks else (1, 1)
                fits = len(rest) == 2 and (0 in first or (rest[0] >= least[0] and rest[1] >= least[1]))
                kinds = 'biuf' if self.metadata.full_masks else 'f'
            else:
                fits = rest == ((4,) if name == 'boxes' else ())
                kinds = 'iu' if name in ('labels', 'image_index') else 'f'
            if array.shape[: len(first)] != first or not fits or array.dtype.kind not in kinds:
                raise self._broken(f'{name} is {array.shape} of {array.dtype}')

    def _check_values(self, found: Detections) -> None:
        """Raise an :class:`InputError` where there is no such class or place."""
        if not np.isfinite(found.boxes).all() or not all(label in self._labels for label in found.labels.tolist()):
            raise self._broken(f'a box is not finite or a label not one of {len(self._labels)}')

    def _broken(self, why: str) -> InputError:
        return InputError(
            f"The exported model {self.path} doesn't compute what its metadata promise, {why}: export the checkpoint "
            'again by tools/export.py.'
        )


def is_exported(path: str | Path) -> bool:
    """Whether it is a file of one of the runtimes, by its name."""
    return Path(path).suffix in SUFFIXES


def require(package: str) -> Any:
    """Import what the extra ``export`` installs.

    Raises:
        InputError: it isn't installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{package} isn't installed, which exported models need: pip install -e '.[export]'."
        ) from error


Opened = tuple[Metadata, set[str], set[str], Callable]
"""A file's metadata, the names of its inputs and of its outputs, and what runs it."""


def _listed(names: set[str]) -> str:
    return ', '.join(sorted(names)) or 'nothing'


def _open_onnxruntime(path: str, threads: int | None) -> Opened:
    onnxruntime = require('onnxruntime')
    if Path(path).suffix != '.onnx':
        raise InputError(f'ONNX Runtime reads ONNX files and {path} is none: export with --format onnx.')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=onnxruntime.get_available_providers())
    except Exception as error:  # of many kinds, none of them public
        raise _damaged(path) from error
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, inputs), strict=True))

    metadata = Metadata.read(session.get_modelmeta().custom_metadata_map, path)
    return metadata, {one.name for one in session.get_inputs()}, set(names), run


@kept_signal_stack()
def _open_openvino(path: str, threads: int | None) -> Opened:
    openvino = require('openvino')
    core = openvino.Core()
    try:
        model = core.read_model(path)
    except Exception as error:
        if 'DeformConv' in str(error):
            raise InputError(f"OpenVINO doesn't run the deformable convs of {path}: use ONNX Runtime.") from error
        raise _damaged(path) from error
    metadata = _openvino_metadata(model, path)
    # Without a hint it computes in bfloat16 where the CPU can.
    settings: dict[str, Any] = {'INFERENCE_PRECISION_HINT': 'bf16' if metadata.precision == 'half' else 'f32'}
    if threads:
        settings['INFERENCE_NUM_THREADS'] = threads
    compiled = core.compile_model(model, 'CPU', settings)
    # A tensor may have names of the graph's own beside ours.
    ours = {*Detections._fields, 'image_index', 'images', 'sizes'}
    inputs, names = (
        [min(one.names, key=lambda name: (name not in ours, name)) for one in ports]
        for ports in (compiled.inputs, compiled.outputs)
    )

    def run(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = compiled(given, share_inputs=True)
        return {name: results[i] for i, name in enumerate(names)}

    return metadata, set(inputs), set(names), run


def _openvino_metadata(model: Any, path: str) -> Metadata:
    """From OpenVINO's own file, or from an ONNX file, whose metadata OpenVINO leaves behind."""
    if Path(path).suffix == '.onnx':
        entries = require('onnx').load(path, load_external_data=False).metadata_props
        return Metadata.read({entry.key: entry.value for entry in entries}, path)
    keys = [['centermask', field.name] for field in fields(Metadata)]
    return Metadata.read({key[1]: str(model.get_rt_info(key).value) for key in keys if model.has_rt_info(key)}, path)


def _damaged(path: str) -> InputError:
    return InputError(
        f'The exported model {path} is damaged or no model: export the checkpoint again by tools/export.py.'
    )
