"""Write exported models as ONNX or OpenVINO files, in float32 or in reduced precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from centermask.export import reduced_precision
from centermask.export.metadata import Metadata
from centermask.export.runtime import require
from centermask.utils.errors import RunError


def set_metadata(exported: Any, metadata: Metadata) -> None:
    """Replace the metadata of an ONNX model."""
    del exported.metadata_props[:]
    require('onnx').helper.set_model_props(exported, metadata.strings())


def convert(source: Path, out: Path, metadata: Metadata, inputs: reduced_precision.Inputs = ()) -> None:
    """Write a float32 ONNX file in another format or precision.

    Args:
        source: the ONNX file.
        out: ``.onnx``, or ``.xml`` for OpenVINO, which also writes a ``.bin`` with the weights beside it.
        metadata: of ``out``; its precision is the precision to write.
        inputs: calibration inputs for int8.

    Raises:
        InputError: a package isn't installed that this needs.
        RunError: OpenVINO can't write its files.
    """
    precision = metadata.precision
    if out.suffix == '.xml':
        openvino = require('openvino')
        model = openvino.convert_model(source)
        if precision == 'int8':
            model = reduced_precision.int8_openvino(model, inputs)
        for key, value in metadata.strings().items():
            model.set_rt_info(value, ['centermask', key])
        try:
            openvino.save_model(model, out, compress_to_fp16=precision == 'half')
        except RuntimeError as error:  # which doesn't say why
            raise RunError(f"{out.name} can't be written: make room in the folder of --out or name another.") from error
        return
    if precision == 'int8':
        exported = reduced_precision.int8_onnx(source, inputs)
    else:
        exported = require('onnx').load(source)
        if precision == 'half':
            exported = reduced_precision.half_onnx(exported)
    set_metadata(exported, metadata)
    require('onnx').save(exported, out)
