"""What an exported file says of itself, so that it can be used without its config."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from centermask.arguments import is_whole
from centermask.utils.errors import InputError


@dataclass
class Metadata:
    """Stored in the file as one string a field, each a JSON value.

    Args:
        recipe: ``'paper'`` or ``'star'``.
        version: of this package.
        classes: names, in the order of the labels.
        mean, std: of the pixels' channels, blue, green, red.
        divisor: images are padded at right and bottom to multiples of it.
        scale: the longest and the shortest side of a test image, in pixels.
        resize: the config's transform that resizes test images, as ``'RoundResize'``.
        preprocess: whether images come as pixels, (N, H, W, 3) and uint8, instead of normalised and padded.
        full_masks: whether masks come in the images' pixels instead of in their boxes.
        detections: the fixed number of detections of an image, 0 where it is as many as there are.
        pasting: how a mask goes from its box to the image, ``'sampled'`` or ``'resized'``.
        mask_threshold: from which probability on a pixel belongs to the object.
        precision: ``'float32'``, ``'half'`` or ``'int8'``.
    """

    recipe: str
    version: str
    classes: list[str]
    mean: list[float]
    std: list[float]
    divisor: int
    scale: list[int]
    resize: str
    preprocess: bool
    full_masks: bool
    detections: int
    pasting: str
    mask_threshold: float
    precision: str = 'float32'

    def strings(self) -> dict[str, str]:
        """What is written into the file."""
        return {key: json.dumps(value) for key, value in asdict(self).items()}

    @classmethod
    def read(cls, strings: Mapping[str, str], path: str) -> Metadata:
        """What :meth:`strings` wrote.

        Raises:
            InputError: some of it is missing, unreadable or of another type.
        """
        missing = [field.name for field in fields(cls) if field.name not in strings]
        if missing:
            raise InputError(
                f"The file {path} doesn't say what its model needs ({', '.join(missing)} missing in its metadata): "
                'export the checkpoint by tools/export.py.'
            )
        try:
            values = {field.name: json.loads(strings[field.name]) for field in fields(cls)}
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"The metadata of {path} can't be read: export the checkpoint again by tools/export.py."
            ) from error
        for name, (what, holds) in _RULES.items():
            if not holds(values[name]):
                raise InputError(
                    f"The metadata of {path} can't be used, {name} is {str(values[name])[:100]!r} and not {what}: "
                    'export the checkpoint again by tools/export.py.'
                )
        return cls(**values)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # which NaN isn't


def _listed(value: Any, holds: Callable[[Any], bool], count: int | None = None) -> bool:
    return isinstance(value, list) and len(value) > 0 and count in (None, len(value)) and all(map(holds, value))


def _side(value: Any) -> bool:
    return is_whole(value) and 0 < value <= 2**16


_FLAG = ('true or false', lambda value: isinstance(value, bool))
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    'recipe': ('paper or star', lambda value: value in ('paper', 'star')),
    'version': ('text', lambda value: isinstance(value, str)),
    'classes': ('a list of names', lambda value: _listed(value, lambda name: isinstance(name, str))),
    'mean': ('three numbers', lambda value: _listed(value, _number, 3)),
    'std': ('three numbers above 0', lambda value: _listed(value, lambda one: _number(one) and one > 0, 3)),
    'divisor': ('a number of pixels', _side),
    'scale': ('two numbers of pixels', lambda value: _listed(value, _side, 2)),
    'resize': ('text', lambda value: isinstance(value, str)),
    'preprocess': _FLAG,
    'full_masks': _FLAG,
    'detections': ('a number from 0 on', lambda value: value == 0 or _side(value)),
    'pasting': ('sampled or resized', lambda value: value in ('sampled', 'resized')),
    'mask_threshold': ('a number from 0 to 1', lambda value: _number(value) and 0 <= value <= 1),
    'precision': ('float32, half or int8', lambda value: value in ('float32', 'half', 'int8')),
}
