"""Comparison of a model's arrays with those of a reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from parity.synthetic import fingerprint

Arrays = dict[str, np.ndarray]
Kind = tuple[str, str, float]
"""A pattern of arrays' names, the unit of their deviation (a key of :data:`UNITS`), and the largest allowed one."""

# Where exactly 0 is expected of a loss or a gradient.
NEAR_ZERO = 1e-6

# The deviation of found values from expected ones, both float64 and of one shape. Fingerprints begin with mean and std.
UNITS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    'std': lambda found, expected: _ratio(found - expected, expected[1]),
    'largest': lambda found, expected: _ratio(found - expected, np.abs(expected).max()),
    'ratio': lambda found, expected: _ratio(found - expected, np.abs(expected)),
    'pixels': lambda found, expected: np.abs(found - expected),
    'number': lambda found, expected: np.abs(found - expected),
    'part of all': lambda found, expected: _ratio(found - expected, np.abs(expected).sum()),
    'pixels, part': lambda found, expected: np.mean(found != expected),
    'absolute': lambda found, expected: np.abs(found - expected),
    'absolute, inside': lambda found, expected: _inside(np.abs(found - expected)),
    'std of each': lambda found, expected: _ratio(found - expected, expected[..., 1:2]),
    'std of each, inside': lambda found, expected: _inside(_ratio(found - expected, expected[..., 1:2])),
    'ratio or 0.02': lambda found, expected: _ratio(found - expected, np.maximum(np.abs(expected), 0.02)),
    'bits': lambda found, expected: np.unpackbits(found.astype(np.uint8) ^ expected.astype(np.uint8)).sum(),
    'segments': lambda found, expected: _of_segments(found, expected),
}


class Computed(NamedTuple):
    """The arrays of a model, and how they are compared with a file's.

    Attributes:
        arrays: by the names of the expected ones. Maps are complete where those are fingerprints.
        kinds: the first one that matches a name counts.
        detections: groups of ``boxes``, ``labels`` and ``scores``, by the start of their names. They are matched by
            label and box, since detections of close scores may swap.
        steps: the start of the names of each training step. The file chooses which gradients (``grad.*``) it lists, at
            least one for each step.
        lacking: pattern of arrays that the model lacks; the file may lack them too, or have them empty.
        given: pattern of arrays of the file that were input here, and aren't compared.
    """

    arrays: Arrays
    kinds: tuple[Kind, ...]
    detections: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    lacking: str = '(?!)'
    given: str = '(?!)'


class Row(NamedTuple):
    """The deviation of one array from the reference's, and the largest that is allowed."""

    name: str
    deviation: float
    tolerance: float
    unit: str
    problem: str = ''

    @property
    def ok(self) -> bool:
        return not self.problem and self.deviation <= self.tolerance  # not a number: not ok

    def __str__(self) -> str:
        if self.problem:
            return f'{self.name:75} {self.problem}'
        verdict = 'ok' if self.ok else 'BEYOND'
        return f'{self.name:75} {self.deviation:9.2e} {self.tolerance:9.2e}  {self.unit:16} {verdict}'


def compare(computed: Computed, expected: Mapping[str, np.ndarray]) -> list[Row]:
    """Return a row for each expected array, then one for each array that is missing among them."""
    arrays = _in_expected_order(computed, expected)
    rows = []
    for name, reference in expected.items():
        if re.fullmatch(computed.given, name):
            continue
        if re.fullmatch(computed.lacking, name) and not reference.size:
            rows.append(Row(name, 0, 0, 'empty, as is right for this model'))
        elif name not in arrays:
            rows.append(Row(name, np.nan, 0, '', 'MISSING: the model has no such array'))
        else:
            rows.append(_row(name, arrays[name], reference, computed.kinds))
    for name in arrays:
        if name not in expected and 'grad.' not in name and not re.fullmatch(computed.lacking, name):
            rows.append(Row(name, np.nan, 0, '', 'MISSING: the file has no such array'))
    for step in computed.steps:
        if not any(name.startswith(f'{step}grad.') for name in expected):
            rows.append(Row(f'{step}grad.*', np.nan, 0, '', 'MISSING: the file has none of them'))
    return rows


def _row(name: str, found: np.ndarray, reference: np.ndarray, kinds: tuple[Kind, ...]) -> Row:
    unit, tolerance = next((unit, limit) for pattern, unit, limit in kinds if re.fullmatch(pattern, name))
    if unit == 'std':
        found = fingerprint(found)
    if found.shape != reference.shape:
        problem = f'BEYOND: its shape is {found.shape}, expected is {reference.shape}'
        return Row(name, np.inf, tolerance, unit, problem)
    if not reference.size:
        return Row(name, 0, tolerance, unit)
    if reference.dtype.kind == 'U':
        return Row(name, (found != reference).sum(), tolerance, unit)
    found, reference = found.astype(np.float64), reference.astype(np.float64)
    if unit == 'ratio' and not reference.any():
        return Row(name, np.abs(found).max(), NEAR_ZERO, 'absolute')
    return Row(name, UNITS[unit](found, reference).max(), tolerance, unit)


def _ratio(difference: np.ndarray, scale: np.ndarray | np.floating) -> np.ndarray:
    """Return the absolute difference in units of ``scale``; 0 stays 0, also of a map that is 0 throughout."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(difference == 0, 0, np.abs(difference) / scale)


def _inside(deviation: np.ndarray) -> np.ndarray:
    """Return deviations with 0 for arrays that aren't compared, which are NaN throughout: those beyond an image."""
    of_each = deviation.reshape(len(deviation), -1)
    return np.where(np.isnan(of_each).all(1, keepdims=True), 0, of_each)


def _of_segments(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the deviation of each segment's pixels (column 3) in parts of all; of what else differs, infinity."""
    deviation = _ratio(found - expected, expected[:, 3].sum())
    others = np.delete(found != expected, 3, axis=1).any(1)
    return np.where(others, np.inf, deviation[:, 3])


def _in_expected_order(result: Computed, expected: Mapping[str, np.ndarray]) -> Arrays:
    """Return the computed arrays with detections in the order of the expected ones, where there are as many."""
    computed, ordered = result.arrays, dict(result.arrays)
    for group in result.detections:
        keys = [f'{group}{kind}' for kind in ('boxes', 'labels', 'scores')]
        if any(
            key not in computed or key not in expected or computed[key].shape != expected[key].shape for key in keys
        ):
            continue
        (our_boxes, boxes), (our_labels, labels), (our_scores, scores) = (
            (computed[key].astype(np.float64), expected[key].astype(np.float64)) for key in keys
        )
        cost = np.abs(boxes[:, None] - our_boxes).max(-1, initial=0) + np.abs(scores[:, None] - our_scores)
        cost = np.nan_to_num(cost + 1e6 * (labels[:, None] != our_labels), nan=1e9)
        order = np.empty(len(cost), int)
        for i in range(len(cost)):  # each expected detection takes the nearest of those left
            order[i] = cost[i].argmin()
            cost[:, order[i]] = np.inf
        ordered |= {name: array[order] for name, array in computed.items() if name.startswith(group) and array.ndim}
    return ordered
