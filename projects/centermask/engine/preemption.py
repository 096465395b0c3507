"""SIGTERM and SIGINT, as schedulers and Ctrl-C send them: finish the iteration, save a checkpoint, exit."""

from __future__ import annotations

import os
import signal
import sys

import torch
from mmengine.dist import all_reduce, barrier
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from centermask.engine.distributed import is_first_process
from centermask.utils.interrupts import Interrupts


class InterruptionHook(Hook, Interrupts):
    """Saves a checkpoint and exits after the iteration in which any process received SIGTERM or SIGINT.

    It is also the context in which these are remembered. The exit code is 128 plus the signal's number.
    """

    priority = 'LOWEST'  # after the CheckpointHook

    def __init__(self) -> None:
        super().__init__('the training ends after this iteration' if is_first_process() else '')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if number := self._agree():
            hook = find_checkpoint_hook(runner)
            # An epoch is resumed from its beginning, where a checkpoint was saved already.
            if hook is not None and not hook.by_epoch and not is_saved(hook, runner.iter + 1):
                hook._save_checkpoint(runner)
            _exit(runner, hook, number, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None) -> None:
        """Exit in a validation only if a checkpoint was saved before it: the model may hold averaged weights now."""
        hook = find_checkpoint_hook(runner)
        if hook is not None and is_saved(hook, runner.iter) and (number := self._agree()):
            _exit(runner, hook, number, runner.iter)

    def _agree(self) -> int:
        """Return the signal that any process received, 0 if none did."""
        number = torch.tensor(self.number)
        all_reduce(number, 'max')
        return int(number)


def find_checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    """Return the hook that saves the runner's checkpoints."""
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def is_saved(hook: CheckpointHook, step: int) -> bool:
    """Return whether the last checkpoint is that of an iteration, or of an epoch where the hook counts in these."""
    return bool(hook.last_ckpt) and os.path.basename(str(hook.last_ckpt)) == hook.filename_tmpl.format(step)


def _exit(runner: Runner, hook: CheckpointHook | None, number: int, iterations: int) -> None:
    barrier()  # torchrun ends all processes when the first has ended
    saved = hook.last_ckpt if hook is not None else None
    runner.logger.info(
        f'Ended by {signal.Signals(number).name} after iteration {iterations}: '
        + (f'--resume continues from {saved}.' if saved else 'no checkpoint was saved.')
    )
    sys.exit(128 + number)
