"""Comparison of ShapeMask with the numbers of its release: mask branch, boxes, losses, and the whole model."""

from __future__ import annotations

import re

import numpy as np
from mmengine.config import ConfigDict

from parity.comparison import Row, detection_order
from parity.inputs import Inputs
from parity.shapemask_boxes import compute_box_losses, compute_boxes
from parity.shapemask_masks import SIZE, compute_heads, compute_mask_boxes, compute_mask_losses, unpack
from parity.shapemask_model import build_reference_model, compute_testing, compute_training
from parity.synthetic import fingerprint

Arrays = dict[str, np.ndarray]

# Arrays that others are computed from.
INPUTS = re.compile(
    r'in\..*|crop\.boxes|resample\.masks|iso\.(features|prior|classes)|coder\.(anchors|boxes|deltas)'
    r'|outer\.boxes|jitter\.noise_xywh|assign\..*\.gt_.*|det\.\w+\.((cls|reg)\.p.|image_size)|paste\.(masks|boxes)'
    r'|targets\.\w+\.(image|masks|mask_shape|gt_boxes|gt_labels|crowd|noise|size|aug)'
    r'|retina\.\w+\.(gt_.*|(cls|reg)\.p.|zero_targets_of_positives)|mask\.(prior|coarse|fine|targets\d+|\w+\.valid)'
    r'|train\.(gt_.*|noise)'
)
# How arrays are compared (the first match counts): name, unit of the deviation, largest allowed deviation. Fingerprints
# are in standard deviations whatever the unit.
KINDS: tuple[tuple[str, str, float], ...] = (
    (r'crop\.levels|.*\.(positives|labels|classes|valid)\d?|.*\.(count|frozen|per_level|num_positives)', 'number', 0),
    (r'.*\.(targets32|targets128|mask_areas|areas|result)', 'pixels', 2),
    (r'(crop|resample)\..*', 'absolute', 1e-4),
    (r'priors\d+|\w+5\.(weights|priors)|\w+1\.(weights|priors)', 'absolute', 1e-5),
    (r'train5\..*', 'absolute', 5e-4),
    (r'(specific|agnostic|noprior)\d+\..*|iso\..*', 'absolute', 1e-4),
    (r'train\.loss\..*', 'ratio', 1e-4),
    (r'train\.fpn\..*', 'absolute', 3e-3),
    (r'train\.(priors|coarse|fine)', 'absolute', 1e-2),
    (r'train\.grad\..*', 'gradient', 5e-2),
    (r'train\.after\..*', 'largest', 1e-3),
    (r'eval\.(backbone|fpn|cls|reg)\..*', 'absolute', 5e-5),
    (r'eval\.det\.(scores|prior_weights)', 'absolute', 1e-4),
    (r'eval\.det\.(boxes|outer_boxes)', 'absolute', 0.01),
    (r'eval\.det\..*', 'absolute', 5e-4),
    (r'(retina|mask)\..*\.(loss|grad)\..*', 'ratio', 1e-5),
    (r'(det\.\w+\.raw_)?(det\.\w+\.)?scores|.*\.(deltas|encoded)\d?|.*\.scale_xy', 'absolute', 1e-5),
    (r'.*\.input', 'absolute', 1e-4),
    (r'.*', 'absolute', 1e-3),  # boxes in pixels
)
SMALL_GRADIENT = 0.02  # smaller ones are compared by 1e-3: those of biases that a BN follows are 0 but for rounding


def compare_shapemask(model_cfg: ConfigDict, expected: Arrays, inputs: Inputs) -> list[Row]:
    """Compare a config's model, with synthetic weights, with every array of a file of ShapeMask's numbers.

    Crops are compared where their boxes lie in the picture, which all boxes of the model do.

    Args:
        model_cfg: the model of the config.
        expected: the arrays by name. Those of the held-out file begin with the name of the file that has their kind.
        inputs: the pictures of the whole model.
    """
    rows = []
    for part in ('heads.', 'boxes.', 'losses.', 'model.', ''):
        own = {name.removeprefix(part): array for name, array in expected.items() if name.startswith(part)}
        expected = {name: array for name, array in expected.items() if not name.startswith(part)}
        computed = _compute(model_cfg, own, inputs, held_out=bool(part))
        rows += [
            _row(part + name, computed.get(name), array, name)
            for name, array in own.items()
            if not INPUTS.fullmatch(name)
        ]
    return rows


def _compute(model_cfg: ConfigDict, expected: Arrays, inputs: Inputs, held_out: bool) -> Arrays:
    """Return the arrays, in the order and the form of the expected ones; the whole model runs where these have it."""
    heads = dict(train_cfg=model_cfg.train_cfg, test_cfg=model_cfg.test_cfg)
    box_head, roi_head = ({**model_cfg[name], **heads} for name in ('bbox_head', 'roi_head'))
    computed: Arrays = {}
    if 'in.p3' in expected:
        computed |= compute_heads(roi_head, expected)
    computed |= compute_boxes(box_head, expected)
    computed |= compute_mask_boxes(box_head, expected)
    computed |= compute_box_losses(box_head, expected)
    computed |= compute_mask_losses(expected)
    if 'crop.boxes' in expected:
        _keep_inside(expected, computed)
    if any(name.startswith('eval.') for name in expected):
        model = build_reference_model(model_cfg)
        computed |= compute_testing(model, (inputs.single if held_out else inputs.multi).image)
        _order_detections(computed, expected)
        if 'train.noise' in expected:
            computed |= compute_training(model, inputs.multi.image, expected)
    for name, array in expected.items():
        if array.dtype == np.uint8 and name in computed and computed[name].shape != array.shape:
            expected[name] = unpack(array, computed[name].shape[-1])
    return computed


def _keep_inside(expected: Arrays, computed: Arrays) -> None:
    """Leave out the crops of boxes that reach out of the picture."""
    boxes = expected['crop.boxes']
    inside = (boxes >= 0).all(1) & (boxes[:, 2] < SIZE[1]) & (boxes[:, 3] < SIZE[0])
    for name in ('crop.values', 'crop.fingerprint'):
        for arrays in (expected, computed):
            arrays[name] = arrays[name][inside]


def _order_detections(computed: Arrays, expected: Arrays) -> None:
    """Order computed detections like the expected ones: those of close scores may swap."""
    found, wanted = (
        tuple(arrays[f'eval.det.{kind}'].astype(np.float64) for kind in ('boxes', 'labels', 'scores'))
        for arrays in (computed, expected)
    )
    if len(found[0]) == len(wanted[0]):
        order = detection_order(found, wanted)
        for name in computed:
            if name.startswith('eval.det.') and computed[name].ndim:
                computed[name] = computed[name][order]


def _row(title: str, found: np.ndarray | None, reference: np.ndarray, name: str) -> Row:
    unit, tolerance = next((unit, limit) for pattern, unit, limit in KINDS if re.fullmatch(pattern, name))
    if found is None:
        return Row(title, np.nan, 0, '', 'MISSING: the model has no such array')
    scale: np.ndarray | float = 1.0
    if reference.shape[-1:] == (258,) and found.shape != reference.shape:
        of_each = found.reshape(*reference.shape[:-1], -1)
        found = np.apply_along_axis(fingerprint, -1, of_each)
        unit, scale = 'std', reference[..., 1:2].astype(np.float64)
    if found.shape != reference.shape:
        problem = f'BEYOND: its shape is {found.shape}, expected is {reference.shape}'
        return Row(title, np.inf, tolerance, unit, problem)
    if reference.dtype.kind == 'U':
        return Row(title, (found != reference).sum(), tolerance, unit)
    found, reference = found.astype(np.float64), reference.astype(np.float64)
    deviation, size = np.abs(found - reference), np.abs(reference)
    if unit == 'pixels' and name.endswith(('targets32', 'targets128', 'result')):
        deviation = deviation.sum((-2, -1))
    elif unit == 'ratio':
        scale = size
    elif unit == 'gradient':
        scale = np.maximum(size, SMALL_GRADIENT)
    elif unit == 'largest':
        scale = size.max()
    with np.errstate(divide='ignore', invalid='ignore'):
        deviation = np.where(deviation == 0, 0, deviation / scale)
    return Row(title, deviation.max(initial=0), tolerance, unit)
