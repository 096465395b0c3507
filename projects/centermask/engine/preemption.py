"""SIGTERM and SIGINT, as schedulers and Ctrl-C send them: a checkpoint at the end of the iteration, then the end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from mmengine.dist import barrier
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from centermask.engine.distributed import is_first_process

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Remembers a signal within a ``with`` block, where one would end the program; a second SIGINT ends it at once.

    Attributes:
        number: the signal, None while there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self.number = None
        if threading.current_thread() is threading.main_thread():  # others can't
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._before):
            signal.signal(number, self._before.pop(number))

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == number:
            raise KeyboardInterrupt
        if self.number is None and is_first_process():
            again = '; Ctrl-C again ends it at once' if number == signal.SIGINT else ''
            # print may be what the signal interrupted
            os.write(2, f'{signal.Signals(number).name}: the training ends after this iteration{again}\n'.encode())
        self.number = number


class InterruptionHook(Hook):
    """Saves a checkpoint and ends the program after the iteration in which any process was interrupted.

    Comes after the ``CheckpointHook``. The processes agree by the optimiser wrapper's reduction, once a step.

    Args:
        interruption: what the runner's ``train`` waits in.
    """

    priority = 'LOWEST'

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def before_train(self, runner: Runner) -> None:
        runner.optim_wrapper.interruption = self.interruption

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        number = getattr(runner.optim_wrapper, 'interrupted_by', self.interruption.number)
        if number:
            self._end(runner, number, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None) -> None:
        """End a validation early only if nothing is lost: averaged weights are in the model's place meanwhile.

        Of several processes none ends alone; being killed costs them nothing either, once there is that checkpoint.
        """
        hook = find_checkpoint_hook(runner)
        if self.interruption.number and runner.world_size == 1 and hook is not None and _saved_at(hook, runner.iter):
            self._end(runner, self.interruption.number, runner.iter)

    @staticmethod
    def _end(runner: Runner, number: int, iterations: int) -> None:
        hook = find_checkpoint_hook(runner)
        # An epoch resumes at its beginning, where there is a checkpoint already.
        if hook is not None and not hook.by_epoch and not _saved_at(hook, iterations):
            hook._save_checkpoint(runner)
        barrier()  # torchrun ends all processes when the first has ended
        saved = hook.last_ckpt if hook is not None else None
        runner.logger.info(
            f'Ended by {signal.Signals(number).name} after iteration {iterations}: '
            + (f'--resume goes on from {saved}.' if saved else 'no checkpoint was saved.')
        )
        sys.exit(128 + number)


def find_checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def _saved_at(hook: CheckpointHook, iterations: int) -> bool:
    return bool(hook.last_ckpt) and os.path.basename(str(hook.last_ckpt)) == hook.filename_tmpl.format(iterations)
