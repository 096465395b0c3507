"""Steps of the optimiser that are left out where a loss or a gradient isn't finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine import optim
from torch import Tensor, distributed, nn

from centermask.engine.preemption import Interruption


class NotFinite(NamedTuple):
    """Why a step was left out."""

    losses: bool  # whether a loss wasn't finite, in any process, or else a gradient
    here: bool  # whether this process may have caused it

    @property
    def what(self) -> str:
        """What wasn't finite, for a sentence."""
        return 'loss' if self.losses else 'gradient'


class FiniteSteps(optim.OptimWrapper):
    """An optimiser wrapper that applies finite steps only.

    A batch that isn't finite leaves no trace: neither in the weights nor in what the model counts (BN's statistics,
    which the forward pass has already changed by then). Processes agree in one reduction of three numbers a step,
    which also tells them whether one of them was interrupted; the device is waited for once.

    Attributes:
        not_finite: why the last step was left out, None if it was applied.
        left_out: how many steps in a row were.
        interruption: set by the run.
        interrupted_by: the signal that any process got before its last step, None if none did.
    """

    not_finite: NotFinite | None = None
    left_out = 0
    interruption: Interruption | None = None
    interrupted_by: int | None = None
    _buffers: list[Tensor] | None = None
    _copies: Sequence[Tensor] = ()
    _losses_finite: Tensor | None = None

    @property
    def starts_a_step(self) -> bool:
        """Whether the next batch is the first of a step, of which there may be several (``accumulative_counts``)."""
        return self._buffers is None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        if self.starts_a_step:
            self._buffers = list(model.buffers())
            self._copies = [buffer.clone() for buffer in self._buffers]
        with super().optim_context(model):
            yield

    def update_params(self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None) -> None:
        self.not_finite = None
        finite = loss.detach().isfinite().all()
        self._losses_finite = finite if self._losses_finite is None else self._losses_finite & finite
        super().update_params(loss, step_kwargs, zero_kwargs)

    def step(self, **kwargs: Any) -> None:
        here, losses, gradients, interrupted_by = self._agree()
        self.interrupted_by = interrupted_by or None
        if losses and (gradients or self._overflow_is_handled()):
            super().step(**kwargs)
            self.left_out = 0
        else:
            self.not_finite = NotFinite(losses=not losses, here=not here or bool(losses))
            self.left_out += 1
            for buffer, copy in zip(self._buffers or [], self._copies, strict=True):
                buffer.copy_(copy)
        self._buffers = self._losses_finite = None
        self._copies = ()

    def _agree(self) -> tuple[int, int, int, int]:
        """Whether losses are finite here, losses everywhere, gradients everywhere; and the greatest signal, 0 if none.

        Gradients have been added up over the processes already, or each has its share.
        """
        gradients = [p.grad for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        here = self._losses_finite
        if here is None:  # a step of one's own, without update_params, is judged by its gradients
            here = torch.ones((), dtype=torch.bool, device=gradients[0].device if gradients else 'cpu')
        finite = torch.ones_like(here)
        if gradients:  # a norm isn't finite from gradients of 1e19 on either, as in clipping
            finite = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)]).isfinite().all()
        signal = self.interruption.number if self.interruption is not None else None
        words = torch.stack([~here, ~finite, here.new_zeros(())]).int()
        words[2] = signal or 0
        mine = words[:1].clone()
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            distributed.all_reduce(words, distributed.ReduceOp.MAX)
        not_here, losses, not_finite, number = torch.cat([mine, words]).tolist()
        return 1 - not_here, 1 - losses, 1 - not_finite, number

    def _overflow_is_handled(self) -> bool:
        """Whether a loss scaler leaves the step out by itself and goes on with a smaller scale."""
        return False


@OPTIM_WRAPPERS.register_module()
class OptimWrapper(FiniteSteps):
    """MMEngine's, with finite steps only; the same name in MMDetection's registry, so that every config gets it."""
