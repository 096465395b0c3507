"""The validation that an interruption, or a kill, cut short."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner


class MissedValidationHook(Hook):
    """Begins a resumed training with the validation that was due at its checkpoint, if that never came to its end.

    The checkpoint, saved before it, can't tell: the file ``last_validation`` of the work folder does.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        note = _note(runner)
        if not loop.iter:
            note.unlink(missing_ok=True)  # of an earlier training
        if runner.val_loop is None or not loop.iter or not hasattr(loop, 'val_interval'):
            return
        noted = [note.read_text() if note.is_file() else None]
        broadcast_object_list(noted)
        epochs = isinstance(loop, EpochBasedTrainLoop)
        done, total = (loop.epoch, loop.max_epochs) if epochs else (loop.iter, loop.max_iters)
        loop._decide_current_val_interval()
        due = done >= loop.val_begin and (done % loop.val_interval == 0 or done == total)
        if due and noted != [str(loop.iter)]:
            runner.logger.info(f'The validation after {"epoch" if epochs else "iteration"} {done} comes first.')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if is_main_process():
            _note(runner).write_text(str(runner.iter))


def _note(runner: Runner) -> Path:
    return Path(runner.work_dir, 'last_validation')
