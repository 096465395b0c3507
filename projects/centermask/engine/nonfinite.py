"""Optimiser steps whose loss or gradient isn't finite: skipped in all processes, and reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from centermask.utils.errors import RunError

MAX_SKIPPED = 3
"""Steps skipped in a row that end a run."""


class SkipNonFinite(OptimWrapper):
    """An optimiser wrapper that skips steps with a loss or a gradient that isn't finite.

    The weights stay as they were, and so do the buffers that training changes, such as the statistics of BN that isn't
    frozen. The processes agree by one reduction of two numbers a step.

    Attributes:
        cause: why the last step was skipped, ``'loss'`` or ``'gradient'``; None if it was applied.
        is_local: whether a batch of this process may be the cause.
        skipped: how many steps in a row were skipped.
    """

    cause: str | None = None
    is_local = False
    skipped = 0
    _losses: tuple[Tensor, ...] = ()  # of the batches of this step
    _buffers: Sequence[tuple[Tensor, Tensor]] = ()  # with copies from before this step

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        if not self._losses:
            training = (module for module in model.modules() if module.training)  # frozen BN isn't
            self._buffers = [(buffer, buffer.clone()) for module in training for buffer in module.buffers(False)]
        with super().optim_context(model):
            yield

    def update_params(self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None) -> None:
        self._losses = (*self._losses, loss.detach())
        super().update_params(loss, step_kwargs, zero_kwargs)

    def step(self, **kwargs: Any) -> None:
        """Apply the step if it is finite in all processes."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        norm = get_total_norm(gradients)  # of the gradients averaged over the processes
        losses = torch.stack([loss.to(norm) for loss in self._losses] or [norm.new_zeros(())])
        local = torch.stack([losses.isfinite().all(), norm.isfinite()]).logical_not().int()
        anywhere = local.clone()
        all_reduce(anywhere, 'max')
        local_loss, _, loss, gradient = torch.cat([local, anywhere]).tolist()  # one wait for the device
        if loss or (gradient and not self._scaler_handles_overflow()):
            self.cause = 'loss' if loss else 'gradient'
            self.is_local = bool(local_loss) or not loss
            self.skipped += 1
            for buffer, copy in self._buffers:
                buffer.copy_(copy)
        else:
            self.cause, self.skipped = None, 0
            super().step(**kwargs)
        self._losses = ()

    def _scaler_handles_overflow(self) -> bool:
        """Return whether a loss scaler will skip the step itself and reduce its scale."""
        return False


@OPTIM_WRAPPERS.register_module()
class NonFiniteSafeOptimWrapper(SkipNonFinite):
    """MMEngine's ``OptimWrapper`` that skips steps which aren't finite."""


class NonFiniteHook(Hook):
    """Logs the images of each skipped step and ends the run at the third in a row.

    Raises:
        RunError: by then.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._batches: list[dict] = []  # of this step

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, SkipNonFinite):
            return
        self._batches.append(data_batch)
        if not wrapper.should_update():
            return
        batches, self._batches = self._batches, []
        if wrapper.cause is None:
            return
        samples = (sample for batch in batches for sample in batch['data_samples'])
        images = ', '.join(str(sample.metainfo.get('img_path')) for sample in samples)
        if wrapper.is_local:
            losses = ', '.join(f'{name} {value.item():.4g}' for name, value in (outputs or {}).items())
            runner.logger.error(  # MMEngine prints errors of every process
                f'Iteration {runner.iter + 1}, process {runner.rank}: a {wrapper.cause} is not finite and the step was '
                f'skipped ({losses}), images: {images}.'
            )
        if wrapper.skipped == MAX_SKIPPED:
            raise RunError(
                f'{MAX_SKIPPED} steps in a row had a {wrapper.cause} that is not finite, up to iteration '
                f'{runner.iter + 1} (images {images}): lower the learning rate or lengthen the warm-up, set '
                'optim_wrapper.clip_grad, train without --amp, or check these images and their boxes.'
            )
