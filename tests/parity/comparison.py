"""Comparison of a model's arrays with those of a reference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from mmengine.config import Config

from centermask.detector import CenterMask
from centermask.utils.errors import InputError
from centermask.vovnet import VARIANTS, OSAModule
from parity.inputs import Inputs
from parity.model import build_reference_model
from parity.outputs import Arrays, compute
from parity.synthetic import fingerprint

# Where exactly 0 is expected of a loss or a gradient.
NEAR_ZERO = 1e-6
GRADIENTS, GRADIENTS_OF_99 = 5e-3, 1e-2

# How arrays are compared (the first match counts): name, unit of the deviation, largest allowed deviation.
# Units relative to the array's scale hold on any CPU: with the instructions of SSE4.1 or of AVX2 alone, mask logits
# near 0 deviate by 8e-5 of themselves, and no logit by more than 3e-6 of the largest.
KINDS: tuple[tuple[str, str, float], ...] = (
    (r'backbone\..*|fpn\..*', 'std', 5e-5),
    (r'fcos\..*|roi\.features|(bias3\.)?det\.mask_probs', 'std', 3e-4),
    (r'mask\.(logits|iou)|.*\.mask_scores', 'largest', 5e-5),
    (r'.*\.scores', 'ratio', 1e-4),
    (r'.*\.boxes', 'pixels', 0.01),
    (r'.*\.mask_areas', 'pixels', 2),
    (r'.*\.labels|.*train\.positives', 'number', 0),
    (r'(.*\.)?loss\..*', 'ratio', 1e-4),
    (r'(.*\.)?grad\..*', 'ratio', GRADIENTS),
)
# Arrays that a model without mask scoring lacks; references may leave them out or empty.
OF_MASK_SCORING = re.compile(r'mask\.iou|.*\bloss\.maskiou|.*\.mask_scores')


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


def compare_with_reference(cfg: Config, expected: Arrays, inputs: Inputs) -> list[Row]:
    """Compare a config's model, with synthetic weights, with every array of a reference.

    Args:
        cfg: the config.
        expected: the reference's arrays by name.
        inputs: the inputs that they were computed from.

    Returns:
        A row for each expected array, then one for each array that the reference should have had.

    Raises:
        InputError: the config's model can't be compared, or not on these inputs.
    """
    model, recipe = build_reference_model(cfg)
    classes = model.bbox_head.num_classes
    largest = max(labels.max() for labels in (inputs.single.labels, inputs.multi.labels, inputs.roi_labels))
    if largest >= classes:
        raise InputError(
            f'The inputs have an object of class {largest} and the model of {cfg.filename} has {classes} classes: give '
            'the config of the model that the numbers are of.'
        )
    tolerance = GRADIENTS_OF_99 if _is_vovnet_99(model) else GRADIENTS
    has_scoring = model.roi_head.mask_iou_head is not None
    return compare(compute(model, recipe, inputs), expected, has_scoring, tolerance)


def _is_vovnet_99(model: CenterMask) -> bool:
    """Return whether the backbone is the deepest, whose gradients rounding moves most."""
    modules = sum(isinstance(part, OSAModule) for part in model.backbone.modules())
    return modules == sum(VARIANTS['99'].blocks_per_stage)


def compare(
    computed: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    mask_scoring: bool = True,
    gradient_tolerance: float = GRADIENTS,
) -> list[Row]:
    """Compare arrays by name.

    Detections are matched by label and box, since detections of close scores may swap. The reference chooses which
    gradients it lists, at least one for each training step. All other arrays must be there on both sides.

    Args:
        computed: the result of :func:`~parity.outputs.compute`.
        expected: the reference's arrays.
        mask_scoring: whether the model has a mask scoring head.
        gradient_tolerance: the largest relative deviation of a gradient's L2 norm.
    """
    computed = _in_expected_order(computed, expected)
    rows = []
    for name, reference in expected.items():
        if not mask_scoring and OF_MASK_SCORING.fullmatch(name) and not reference.size:
            rows.append(Row(name, 0, 0, 'empty, as is right without mask scoring'))
        elif name not in computed:
            rows.append(Row(name, np.nan, 0, '', 'MISSING: the model has no such array'))
        else:
            rows.append(_row(name, computed[name], reference, gradient_tolerance))
    for name in computed:
        optional = 'grad.' in name or (not mask_scoring and OF_MASK_SCORING.fullmatch(name))
        if name not in expected and not optional:
            rows.append(Row(name, np.nan, 0, '', 'MISSING: the file has no such array'))
    for step in ('', 'multi.', 'bias3.'):
        if not any(name.startswith(f'{step}grad.') for name in expected):
            rows.append(Row(f'{step}grad.*', np.nan, 0, '', 'MISSING: the file has none of them'))
    return rows


def _row(name: str, found: np.ndarray, reference: np.ndarray, gradient_tolerance: float) -> Row:
    unit, tolerance = next((unit, limit) for pattern, unit, limit in KINDS if re.fullmatch(pattern, name))
    if 'grad.' in name:
        tolerance = gradient_tolerance
    if unit == 'std':
        found = fingerprint(found)
    if found.shape != reference.shape:
        problem = f'BEYOND: its shape is {found.shape}, expected is {reference.shape}'
        return Row(name, np.inf, tolerance, unit, problem)
    if not reference.size:
        return Row(name, 0, tolerance, unit)
    found, reference = found.astype(np.float64), reference.astype(np.float64)
    deviation, size = np.abs(found - reference), np.abs(reference)
    if unit == 'ratio' and not reference.any():
        return Row(name, deviation.max(), NEAR_ZERO, 'absolute')
    if unit == 'std':
        scale = reference[1]
    elif unit == 'largest':
        scale = size.max()
    elif unit == 'ratio':
        scale = size
    else:
        scale = 1.0
    with np.errstate(divide='ignore', invalid='ignore'):
        deviation = np.where(deviation == 0, 0, deviation / scale)  # of a map that is 0 throughout, too
    return Row(name, deviation.max(), tolerance, unit)


def _in_expected_order(computed: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Arrays:
    """Return the computed arrays with detections in the order of the expected ones, where there are as many."""
    ordered = dict(computed)
    for group in ('det.', 'raw.', 'bias3.det.', 'bias3.raw.'):
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
        ordered |= {name: array[order] for name, array in computed.items() if name.startswith(group)}
    return ordered
