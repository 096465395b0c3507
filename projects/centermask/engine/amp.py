"""Mixed precision wherever the model trains, half precision where it is tested."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from centermask.engine.nonfinite import FiniteSteps
from centermask.utils.errors import InputError


# The second name is MMEngine's, which `mim train --amp` gives.
@OPTIM_WRAPPERS.register_module(name=['MixedPrecisionOptimWrapper', 'AmpOptimWrapper'])
class MixedPrecisionOptimWrapper(FiniteSteps, AmpOptimWrapper):
    """MMEngine's ``AmpOptimWrapper`` on a GPU; without one bfloat16, the only type that autocast has for CPUs.

    bfloat16 has the exponents of float32, so on a CPU nothing is scaled, whatever ``loss_scale`` says.

    Args:
        loss_scale: ``'dynamic'``, a number, or the arguments of torch's ``GradScaler``; GPU only.
        dtype: ``'float16'`` or ``'bfloat16'``, by default float16; GPU only.
        **kwargs: as for ``OptimWrapper``.
    """

    def __init__(self, loss_scale: str | float | dict = 'dynamic', dtype: str | None = None, **kwargs: Any) -> None:
        if is_cuda_available():
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
            return
        OptimWrapper.__init__(self, **kwargs)
        self.cast_dtype = torch.bfloat16
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self._scale_update_param = None

    def state_dict(self) -> dict:
        state = super().state_dict()
        if not state['loss_scaler']:  # an unused scaler has no state, and one in use refuses to load that
            del state['loss_scaler']
        return state

    def _overflow_is_handled(self) -> bool:
        # At 1 it's the gradients themselves that overflow.
        return self.loss_scaler.is_enabled() and self._scale_update_param is None and self.loss_scaler.get_scale() > 1


def use_half_precision(cfg: Config, device: str, exported: bool = False) -> None:
    """Have a config's detector compute in half precision when it is tested: ``--amp`` of the command lines.

    Args:
        cfg: config of a CenterMask.
        device: torch's name of the device that it will be tested on.
        exported: whether it is an exported file that will be tested.

    Raises:
        InputError: the config's detector can't do so, or the device would be slower for it.
    """
    if exported:
        raise InputError('--amp: an exported file has its precision: export the checkpoint with --half.')
    if cfg.model.type != 'CenterMask':
        raise InputError(f'--amp: the model of {cfg.filename} is a {cfg.model.type}, and only a CenterMask takes it.')
    if device == 'cpu' and not torch.cpu._is_avx512_bf16_supported():
        raise InputError('--amp: this CPU has no bfloat16 (avx512_bf16) and would be slower: leave --amp out.')
    cfg.model.half_precision = True
