"""Mixed precision in training, also without a GPU, and half precision in testing."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS, OPTIM_WRAPPERS
from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from centermask.engine.nonfinite import SkipNonFinite
from centermask.fast.fused_inference import FusedInference
from centermask.utils.errors import InputError


@OPTIM_WRAPPERS.register_module()
class NonFiniteSafeAmpOptimWrapper(SkipNonFinite, AmpOptimWrapper):
    """MMEngine's ``AmpOptimWrapper`` that skips steps which aren't finite; on a CPU it trains in bfloat16.

    bfloat16 has the exponents of float32, so that on a CPU no loss is scaled.

    Args:
        loss_scale: ``'dynamic'``, a number, or the arguments of torch's ``GradScaler``; GPU only.
        dtype: ``'float16'`` or ``'bfloat16'``, by default float16; GPU only.
        **kwargs: as for ``OptimWrapper``.
    """

    def __init__(self, loss_scale: str | float | dict = 'dynamic', dtype: str | None = None, **kwargs: Any) -> None:
        if is_cuda_available():
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
            return
        OptimWrapper.__init__(self, **kwargs)  # MMEngine's asserts a GPU
        self.cast_dtype = torch.bfloat16
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self._scale_update_param = None

    def _scaler_handles_overflow(self) -> bool:
        # With a scale of 1 the gradients themselves overflow.
        return self.loss_scaler.is_enabled() and self._scale_update_param is None and self.loss_scaler.get_scale() > 1


def use_half_precision(cfg: Config, device: str, exported: bool = False) -> None:
    """Make a config's detector compute in half precision when tested: ``--amp`` of the command lines.

    Args:
        cfg: config of a CenterMask or another detector with fast inference.
        device: torch's name of the device that it will be tested on.
        exported: whether an exported file will be tested.

    Raises:
        InputError: the config's detector can't do so, or the device would be slower for it.
    """
    if exported:
        raise InputError('--amp: an exported file has its precision: export the checkpoint with --half.')
    kind = MODELS.get(cfg.model.type)
    if not (isinstance(kind, type) and issubclass(kind, FusedInference)):
        raise InputError(
            f'--amp: the model of {cfg.filename} is a {cfg.model.type}, which has no half precision here: leave --amp '
            'out.'
        )
    if device == 'cpu' and not torch.cpu._is_avx512_bf16_supported():
        raise InputError('--amp: this CPU has no bfloat16 (avx512_bf16) and would be slower: leave --amp out.')
    cfg.model.half_precision = True
