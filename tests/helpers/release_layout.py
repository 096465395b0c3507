"""A model's weights by the names of the released code bases: what their checkpoints look like."""

from collections.abc import Mapping

from torch import Tensor

from centermask.checkpoints.layouts import RECIPES
from centermask.utils.errors import InputError


def recipe_of(weights: Mapping[str, Tensor]) -> str:
    """Return the release whose layout a model's weights have: ``star``, ``panoptic``, ``paper`` or ``tensormask``.

    Masks of the ``paper`` recipe have a channel for background.

    Args:
        weights: a complete model's, by MMDetection's names.
    """
    if 'mask_head.fuse.0.conv.weight' in weights:
        return 'tensormask'
    classes, masks = weights['bbox_head.conv_cls.weight'], weights['roi_head.mask_head.conv_logits.weight']
    if len(masks) == len(classes) + 1:
        return 'paper'
    return 'panoptic' if 'semantic_head.conv_logits.weight' in weights else 'star'


def to_release(weights: Mapping[str, Tensor], recipe: str) -> dict[str, Tensor]:
    """Return the weights of a complete model as a released code base names them.

    Args:
        weights: by MMDetection's names. Batch counters of BN, which frozen norms there have not, are dropped.
        recipe: ``star``, ``panoptic``, ``paper`` or ``tensormask``.

    Raises:
        InputError: a tensor has no name there.
    """
    released = {}
    for name, tensor in weights.items():
        if name.endswith('.num_batches_tracked'):
            continue
        its_name = RECIPES[recipe].table.to_release(name)
        if its_name is None:
            raise InputError(f'{name} has no name in the {recipe} layout: no released model has such a part.')
        released[its_name] = tensor.reshape(1) if its_name.endswith('.scale') else tensor
    return released
