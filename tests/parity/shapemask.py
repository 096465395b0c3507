"""Comparison of ShapeMask with the numbers of its release: mask branch, boxes, losses, and the whole model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict

from centermask.utils.errors import config_errors
from parity.comparison import Arrays, Computed, Kind
from parity.inputs import read_inputs
from parity.shapemask_boxes import compute_box_losses, compute_boxes
from parity.shapemask_masks import compute_heads, compute_mask_boxes, compute_mask_losses
from parity.shapemask_model import build_reference_model, compute_testing, compute_training
from parity.synthetic import fingerprint

# Arrays that others are computed from.
INPUTS = (
    r'in\..*|crop\.boxes|resample\.masks|iso\.(features|prior|classes)|coder\.(anchors|boxes|deltas)'
    r'|outer\.boxes|jitter\.noise_xywh|assign\..*\.gt_.*|det\.\w+\.((cls|reg)\.p.|image_size)|paste\.(masks|boxes)'
    r'|targets\.\w+\.(image|masks|mask_shape|gt_boxes|gt_labels|crowd|noise|size|aug)'
    r'|retina\.\w+\.(gt_.*|(cls|reg)\.p.|zero_targets_of_positives)|mask\.(prior|coarse|fine|targets\d+|\w+\.valid)'
    r'|train\.(gt_.*|noise)'
)
# How arrays are compared (the first match counts): name, unit of the deviation, largest allowed deviation.
# Fingerprints are compared in standard deviations.
KINDS: tuple[Kind, ...] = (
    (r'crop\.(values|fingerprint)', 'absolute, inside', 1e-4),
    (r'crop\.levels|.*\.(positives|labels|classes|valid)\d?|.*\.(count|frozen|per_level|num_positives)', 'number', 0),
    (r'(targets|train)\..*targets\d+|paste\.result', 'bits', 2),
    (r'.*\.(mask_areas|areas)', 'pixels', 2),
    (r'resample\..*', 'absolute', 1e-4),
    (r'priors\d+|\w+\d\.(weights|priors)', 'absolute', 1e-5),
    (r'train5\..*', 'absolute', 5e-4),
    (r'(specific|agnostic|noprior)\d+\..*|iso\..*', 'absolute', 1e-4),
    (r'train\.loss\..*', 'ratio', 1e-4),
    (r'train\.fpn\..*', 'absolute', 3e-3),
    (r'train\.(priors|coarse|fine)', 'absolute', 1e-2),
    # Smaller gradients are compared by 1e-3: those of biases that a BN follows are 0 but for rounding.
    (r'train\.grad\..*', 'ratio or 0.02', 5e-2),
    (r'train\.after\..*', 'largest', 1e-3),
    (r'eval\.(backbone|fpn|cls|reg)\..*', 'absolute', 5e-5),
    (r'eval\.det\.(scores|prior_weights)', 'absolute', 1e-4),
    (r'eval\.det\.(boxes|outer_boxes)', 'pixels', 0.01),
    (r'eval\.det\..*', 'absolute', 5e-4),
    (r'(retina|mask)\..*\.(loss|grad)\..*', 'ratio', 1e-5),
    (r'det\.\w+\.(raw_)?scores|.*\.(deltas|encoded)\d?|.*\.scale_xy', 'absolute', 1e-5),
    (r'.*\.input', 'absolute', 1e-4),
    (r'.*', 'pixels', 1e-3),  # boxes
)
PARTS = ('heads.', 'boxes.', 'losses.', 'model.', '')


def compute(cfg: Config, expected: Arrays, inputs: Path) -> Computed:
    """Compute the arrays of a file of ShapeMask's numbers with the parts of a config's model.

    The numbers are of a ResNet-50, 91 classes and TensorFlow's padding, whatever the config has. Crops are compared
    where their boxes lie in the picture, which all boxes of the model do.

    Args:
        cfg: the config.
        expected: the arrays by name, with inputs among them. Those of the held-out file begin with the name of the file
            that has their kind.
        inputs: an ``inputs.npz``, for the pictures of the whole model.
    """
    arrays: Arrays = {}
    kinds: list[Kind] = []
    for part in PARTS:
        own = {name: a for name, a in expected.items() if next(p for p in PARTS if name.startswith(p)) == part}
        own = {name.removeprefix(part): array for name, array in own.items()}
        with config_errors(cfg.filename):
            found = _compute(cfg.model, own, inputs, held_out=bool(part))
        for name, array in found.items():
            if name not in own:  # a file may have some of the cases
                continue
            unit, tolerance = next((unit, limit) for pattern, unit, limit in KINDS if re.fullmatch(pattern, name))
            reference = own[name]
            if reference.shape[-1:] == (258,) and array.shape != reference.shape:
                of_each = array.reshape(*reference.shape[:-1], -1)
                array = np.apply_along_axis(fingerprint, -1, of_each)
                unit = 'std of each, inside' if unit == 'absolute, inside' else 'std of each'
            elif unit == 'bits':
                array = np.packbits(array.astype(bool), axis=-1)
            arrays[part + name] = array
            kinds.append((re.escape(part + name), unit, tolerance))
    names = '|'.join(re.escape(part) for part in PARTS)
    return Computed(
        arrays,
        tuple(kinds),
        detections=tuple(f'{part}eval.det.' for part in PARTS),
        given=rf'({names})({INPUTS})',
    )


def _compute(model_cfg: ConfigDict, expected: Arrays, inputs: Path, held_out: bool) -> Arrays:
    """Return the arrays of one part of the numbers; the whole model runs where they have some of it."""
    heads = dict(train_cfg=model_cfg.train_cfg, test_cfg=model_cfg.test_cfg)
    box_head, roi_head = ({**model_cfg[name], **heads} for name in ('bbox_head', 'roi_head'))
    arrays = compute_heads(roi_head, expected) if 'in.p3' in expected else {}
    arrays |= compute_boxes(box_head, expected) | compute_mask_boxes(box_head, expected)
    arrays |= compute_box_losses(box_head, expected) | compute_mask_losses(expected)
    if any(name.startswith('eval.') for name in expected):
        model, images = build_reference_model(model_cfg), read_inputs(inputs)
        arrays |= compute_testing(model, (images.single if held_out else images.multi).image)
        if 'train.noise' in expected:
            arrays |= compute_training(model, images.multi.image, expected)
    return arrays
