"""The model of a config with synthetic weights, set up as the references ran theirs."""

from __future__ import annotations

from functools import partial

from helpers.release_layout import recipe_of, to_release
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import Tensor, nn

from centermask.checkpoints.layouts import from_release
from centermask.checkpoints.loading import load_weights
from centermask.detector import CenterMask
from centermask.utils.errors import InputError, config_errors
from parity.synthetic import synthetic_weights


def build_reference_model(cfg: Config) -> tuple[CenterMask, str]:
    """Build the model of a config with the synthetic weights of its released keys.

    The keys are the model's, converted to the released layout. The weights are converted back and loaded strictly, so a
    mistake in either conversion shows in the comparison. Nothing is fetched. Two details follow the recipe's own
    release: how the area ratio of an object is measured (both recipes' configs use star's rule), and how frozen BN
    rounds.

    Returns:
        The model and its layout, ``'star'``, ``'panoptic'`` or ``'paper'``.

    Raises:
        InputError: the model has no released layout.
    """
    with config_errors(cfg.filename):
        model = MODELS.build(cfg.model)  # without init_weights(), which would fetch the backbone's
    state = model.state_dict()
    recipe = recipe_of(state)
    translation = from_release(synthetic_weights(to_release(state, recipe)))
    if translation is None:
        raise InputError(f'The model of {cfg.filename} has no released layout: give the config of a released model.')
    misfits = load_weights(model, translation.weights)
    if misfits:
        raise InputError(f"The model of {cfg.filename} doesn't come back from its released layout: {misfits[0]}.")
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.forward = partial(_frozen_norm, module, fused=recipe != 'paper')  # type: ignore[method-assign]
    if recipe == 'paper' and model.roi_head.mask_iou_head is not None:
        model.roi_head.mask_iou_head.area_ratio = 'first_polygon'
    return model, recipe


def _frozen_norm(norm: nn.BatchNorm2d, x: Tensor, fused: bool) -> Tensor:
    """Compute frozen BN as the references do: multiply by one number, then add another.

    The star release does so only when gradients are needed and otherwise calls torch's BN (``fused``), which rounds
    differently. With synthetic weights MobileNetV2 amplifies that to 7e-5 standard deviations at stride 32.
    """
    if norm.training or (fused and not x.requires_grad):
        return nn.BatchNorm2d.forward(norm, x)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    offset = norm.bias - norm.running_mean * scale
    return x * scale[:, None, None] + offset[:, None, None]
