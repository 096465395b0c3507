"""An exported file, run by the runtimes and compared with the model that it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from centermask.detector import CenterMask
from centermask.export.compare import Comparison, compare
from centermask.export.onnx import has_deform_conv
from centermask.export.pictures import make_batch
from centermask.export.runtime import SUFFIXES, ExportedModel
from centermask.utils.errors import InputError


def check(model: CenterMask, file: Path, images: Sequence[Tensor]) -> Iterator[tuple[str, Comparison | InputError]]:
    """Yield each runtime that can run a file, with what it and the file's model find.

    OpenVINO reads ONNX files too. Where it can't open one, be it only that it isn't installed, the reason is yielded.

    Args:
        model: that the file was made of, on the CPU.
        file: ``.onnx`` or ``.xml``.
        images: (3, H, W) of bytes, resized for testing. Each is looked at alone, then the first two together.

    Raises:
        InputError: the file's own runtime can't open it.
    """
    batches = [make_batch(model, [image]) for image in images]
    if len(images) > 1:
        batches.append(make_batch(model, images[:2]))
    own = SUFFIXES[file.suffix]
    for runtime in [own] if own == 'openvino' or has_deform_conv(model) else [own, 'openvino']:
        try:
            exported = ExportedModel(file, runtime)
        except InputError as error:
            if runtime == own:
                raise
            yield runtime, error
        else:
            yield runtime, compare(model, exported, batches)
