"""An exported model as a file of ONNX Runtime or OpenVINO, in float32 or in smaller numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from centermask.export import quantise
from centermask.export.metadata import Metadata
from centermask.export.runtime import require
from centermask.utils.atomic_io import atomic_write


def stamp(exported: Any, metadata: Metadata) -> None:
    """Write metadata into an ONNX model, in place of what it has."""
    del exported.metadata_props[:]
    for key, value in metadata.strings().items():
        exported.metadata_props.add(key=key, value=value)


def save_onnx(exported: Any, out: Path) -> None:
    """Write an ONNX model.

    Raises:
        RunError: it can't be written to its end.
    """
    atomic_write(out, lambda path: path.write_bytes(exported.SerializeToString()))


def convert(source: Path, out: Path, metadata: Metadata, inputs: quantise.Inputs = ()) -> None:
    """Write an exported ONNX file's model as a file of its own.

    Args:
        source: of float32, as :func:`save_onnx` writes it.
        out: ``.onnx``, or for OpenVINO ``.xml``, which gets a ``.bin`` with the weights beside it.
        metadata: for ``out``; their precision says which numbers it gets.
        inputs: to quantise by, for int8.

    Raises:
        InputError: a package isn't installed that this needs.
        RunError: the file can't be written to its end.
    """
    if out.suffix == '.xml':
        model = require('openvino').convert_model(source)
        if metadata.precision == 'int8':
            model = quantise.int8_openvino(model, inputs)
        for key, value in metadata.strings().items():
            model.set_rt_info(value, ['centermask', key])
        _save_openvino(model, out, half=metadata.precision == 'half')
        return
    if metadata.precision == 'int8':
        exported = quantise.int8_onnx(source, inputs)
    else:
        exported = require('onnx').load(source)
        if metadata.precision == 'half':
            exported = quantise.half_onnx(exported)
    stamp(exported, metadata)
    save_onnx(exported, out)


def _save_openvino(model: Any, out: Path, half: bool) -> None:
    """Write an OpenVINO model: ``out``, and its weights beside it with the suffix ``.bin``, if ``half`` in float16."""
    openvino = require('openvino')

    def write(aside: Path) -> None:
        openvino.save_model(model, aside, compress_to_fp16=half)
        os.replace(aside.with_suffix('.bin'), out.with_suffix('.bin'))

    atomic_write(out, write)
