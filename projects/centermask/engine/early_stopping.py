"""Early stopping that a resumed training goes on with."""

from __future__ import annotations

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

from centermask.engine.preemption import find_checkpoint_hook, is_saved

STATE = 'early_stopping'
"""Key of the best figure, the validations since, and the patience, in the message hub's part of a checkpoint."""


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """MMEngine's ``EarlyStoppingHook``, whose count is in the checkpoints, with the validation after each of them.

    Arguments are MMEngine's. Where a training that ended early is resumed, it ends at once, unless the patience is
    higher now.
    """

    priority = 'LOW'  # after the EMAHook, and before a CheckpointHook that saves a better checkpoint
    best_score: float

    def before_run(self, runner: Runner) -> None:
        """Leave the loop of a training alone, which MMEngine's hook builds here for a test too."""

    def before_train(self, runner: Runner) -> None:
        """Take the count of the training that is resumed."""
        self.best_score, self.wait_count, _ = runner.message_hub.runtime_info.get(STATE, (self.best_score, 0, 0))
        if self.wait_count >= self.patience:
            runner.train_loop.stop_training = True
            runner.logger.info(
                f'The training ended early after iteration {runner.iter}, since {self.wait_count} validations had no '
                f'better {self.monitor} than {self.best_score:.3f}: a higher patience continues it.'
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Count, and save the checkpoint of this iteration again, or one where the training ends by it."""
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(STATE, [self.best_score, self.wait_count, self.patience])
        hook = find_checkpoint_hook(runner)
        if hook is None:
            return
        step = runner.epoch if hook.by_epoch else runner.iter
        if runner.train_loop.stop_training or is_saved(hook, step):
            hook._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))


def ended_early(runtime_info: dict[str, Any]) -> bool:
    """Return whether the training with this state of the message hub was ended by its patience."""
    _, waited, patience = runtime_info.get(STATE, (0.0, 0, 1))
    return waited >= patience
