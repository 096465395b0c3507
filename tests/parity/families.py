"""The kinds of models that can be compared with their releases, each by the module that computes its arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from centermask.utils.errors import InputError
from parity import centermask, panoptic, shapemask, tensormask
from parity.comparison import Arrays, Computed, Row, compare

# By the type of a config's model: what builds the model with synthetic weights and computes its arrays from the config,
# the expected arrays (some files hold inputs among them) and the path of inputs.npz.
FAMILIES: dict[str, Callable[[Config, Arrays, Path], Computed]] = {
    'CenterMask': centermask.compute,
    'PanopticCenterMask': panoptic.compute,
    'ShapeMask': shapemask.compute,
    'TensorMask': tensormask.compute,
}


def compare_with_reference(cfg: Config, expected: Arrays, inputs: Path) -> list[Row]:
    """Compare a config's model, with synthetic weights, with every array of a reference.

    Args:
        cfg: the config.
        expected: the reference's arrays by name.
        inputs: the file of the images that they were computed from.

    Returns:
        A row for each expected array, then one for each array that the reference should have had.

    Raises:
        InputError: the config's model can't be compared, or not on these inputs.
    """
    if not isinstance(cfg.get('model'), dict):
        raise InputError(f'The config {cfg.filename} has no model: give one of those directly in configs/.')
    kind = cfg.model.get('type')
    if kind not in FAMILIES:
        raise InputError(
            f'The model of {cfg.filename} is a {kind}, of which no release computed numbers: give the config of a '
            f'{", ".join(FAMILIES)}.'
        )
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    return compare(FAMILIES[kind](cfg, expected, inputs), expected)
