"""The start of a resumed training: its checkpoint, and the first batch after it."""

from __future__ import annotations

import itertools
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import IterBasedTrainLoop, Runner

from centermask.checkpoints.latest import find_latest
from centermask.engine.preemption import find_checkpoint_hook
from centermask.engine.resumable_loader import ResumableLoader
from centermask.utils.errors import InputError


def find_resume_checkpoint(runner: Runner) -> str | None:
    """Return the newest intact checkpoint of a runner's work folder, the same in all processes; None without any.

    Raises:
        InputError: there are checkpoints and none is intact.
    """
    hook = find_checkpoint_hook(runner)
    found: list = [None]
    if is_main_process():  # each process may see another state of a shared folder
        try:
            found = [find_latest(Path(runner.work_dir), hook.filename_tmpl if hook else 'iter_{}.pth')]
        except InputError as error:
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], InputError):
        raise found[0]
    path, damaged = found[0]
    if damaged:
        names = ', '.join(map(str, damaged))
        runner.logger.warning(f'{names} is damaged: resuming from {path}.')
    elif path is None:
        runner.logger.info(f'There is no checkpoint in {runner.work_dir} to resume from: the training begins.')
    return str(path) if path else None


def fast_forward(runner: Runner) -> None:
    """Let a runner that loaded a checkpoint continue with the batch after it, without loading those before."""
    loop = runner.train_loop
    if not isinstance(loop.dataloader, ResumableLoader):
        return
    seed = [runner.seed]  # the checkpoint's
    broadcast_object_list(seed)  # `diff_rank_seed` gives each process its own
    batches = loop.dataloader.batch_sampler
    batches.set_seed(*seed)
    if not isinstance(loop, IterBasedTrainLoop):  # an epoch is resumed from its beginning
        batches.iteration = loop.iter
    elif batches.is_infinite:
        batches.fast_forward(loop.iter)
        if hasattr(loop, 'fast_forward_on_resume'):  # the onedl fork's loop, which can be told to draw none
            loop.fast_forward_on_resume = True
        else:  # MMEngine draws as many batches as were trained on and drops them.
            loop.dataloader_iterator = itertools.chain(itertools.repeat(None, loop.iter), loop.dataloader_iterator)
