"""Metadata of an exported file: what its users need to know without the config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from centermask.utils.errors import InputError

OLD_PASTINGS = {'exact': 'sampled', 'rounded': 'resized'}  # names in files of version 0.1
OLD_RESIZES = {'RoundResize': 'centermask.Resize', 'FloorResize': 'centermask.Resize down'}  # until version 0.2


def resize_rule(step: Mapping[str, Any]) -> str:
    """Name the transform of a test pipeline that resizes, with its rounding where the config sets one."""
    names = step.get('_scope_'), step['type']
    rule = ' '.join(filter(None, ['.'.join(filter(None, names)), step.get('rounding')]))
    return OLD_RESIZES.get(rule, rule)


def describe_resizing(pipeline: Sequence[Mapping[str, Any]]) -> tuple[list, str]:
    """Return the fields ``scale`` and ``resize`` of a test pipeline."""
    steps = [step for step in pipeline if step.get('scale') is not None]
    scales = [sorted(step['scale'], reverse=True) for step in steps]
    return scales[0] if len(scales) == 1 else scales, ', '.join(map(resize_rule, steps))


@dataclass
class Metadata:
    """Metadata, each field of which is stored in the file as a string of JSON.

    Args:
        recipe: ``'paper'`` or ``'star'``.
        version: version of this package.
        classes: names, in the order of the labels.
        mean, std: of the pixels, for blue, green and red.
        divisor: images are padded at the right and bottom to multiples of it, in pixels.
        scale: longest and shortest side of a test image, in pixels; a list of such pairs where the test pipeline
            resizes several times, an empty one where it doesn't.
        resize: type and rounding of the transforms that resize test images, as :func:`resize_rule` names them.
        preprocess: if True, images are given as bytes (N, H, W, 3), else normalised and padded.
        full_masks: if True, masks have the size of the images, else 28×28 cells in their boxes.
        detections: fixed number of detections per image; 0 if it varies.
        pasting: ``'sampled'`` or ``'resized'``, as in :func:`centermask.mask_pasting.paste`.
        mask_threshold: least probability of an object's pixel.
        precision: ``'float32'``, ``'half'`` or ``'int8'``.
    """

    recipe: str
    version: str
    classes: list[str]
    mean: list[float]
    std: list[float]
    divisor: int
    scale: list
    resize: str
    preprocess: bool
    full_masks: bool
    detections: int
    pasting: str
    mask_threshold: float
    precision: str = 'float32'

    def strings(self) -> dict[str, str]:
        """Return the fields as strings of JSON."""
        return {key: json.dumps(value) for key, value in asdict(self).items()}

    @classmethod
    def read(cls, strings: Mapping[str, str], path: str) -> Metadata:
        """Return the metadata of the file ``path`` from strings of JSON.

        Raises:
            InputError: a field is missing or can't be read.
        """
        try:
            values = {field.name: json.loads(strings[field.name]) for field in fields(cls)}
        except (KeyError, ValueError) as error:
            raise InputError(
                f'The metadata of {path} are incomplete or damaged ({error}): export the checkpoint by tools/export.py.'
            ) from error
        values['resize'] = OLD_RESIZES.get(values['resize'], values['resize'])
        values['pasting'] = OLD_PASTINGS.get(values['pasting'], values['pasting'])
        return cls(**values)
