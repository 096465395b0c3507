"""What an exported file says of itself, so that it can be used without its config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from centermask.errors import InputError


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
        pasting: how a mask goes from its box to the image, ``'exact'`` or ``'rounded'``.
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
            InputError: some of it is missing or unreadable.
        """
        missing = [field.name for field in fields(cls) if field.name not in strings]
        if missing:
            raise InputError(
                f"The file {path} doesn't say what its model needs ({', '.join(missing)} missing in its metadata): "
                'export the checkpoint by tools/export.py.'
            )
        try:
            return cls(**{field.name: json.loads(strings[field.name]) for field in fields(cls)})
        except ValueError as error:
            raise InputError(
                f"The metadata of {path} can't be read: export the checkpoint again by tools/export.py."
            ) from error
