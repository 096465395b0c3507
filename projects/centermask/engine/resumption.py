"""What trainings that stop and go on have in common, whichever of MMEngine's runners runs them."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.runner import FlexibleRunner, IterBasedTrainLoop, Runner

from centermask.checkpoints.latest import find_newest
from centermask.engine.missed_validation import MissedValidationHook
from centermask.engine.preemption import Interruption, InterruptionHook, find_checkpoint_hook
from centermask.engine.randomness import IterationSeedHook
from centermask.engine.replay import NotFiniteHook
from centermask.engine.resumable_loader import TrainingLoader
from centermask.utils.errors import InputError


def register_hooks_of_a_training(
    runner: Runner | FlexibleRunner, interruption: Interruption, not_finite: NotFiniteHook
) -> None:
    """Register what every training has besides the hooks of its config."""
    for hook in (IterationSeedHook(), not_finite, InterruptionHook(interruption), MissedValidationHook()):
        runner.register_hook(hook)


def choose_start(runner: Any) -> None:
    """Let a runner that resumes without naming a checkpoint take the newest in its work folder that is whole.

    Raises:
        InputError: there are some and none is.
    """
    if runner._resume and runner._load_from is None:
        hook = find_checkpoint_hook(runner)
        template = hook.filename_tmpl if hook else 'iter_{}.pth'
        runner._load_from = newest_checkpoint(runner.work_dir, runner.logger, template)
        runner._resume = runner._load_from is not None


def with_draws(meta: dict | None, loader: Any) -> dict | None:
    """A checkpoint's ``meta`` with the state of every process's order of images, from their training's loader."""
    if meta is None or not isinstance(loader, TrainingLoader):
        return meta
    return {**meta, 'draws': all_gather_object(loader.draws.state(meta['iter']))}


def newest_checkpoint(work_dir: str, logger: logging.Logger, template: str) -> str | None:
    """The newest checkpoint of a work folder that is whole, the same in all processes; None where there is none.

    Args:
        work_dir: the folder.
        logger: what is passed over is told to it.
        template: of the checkpoints' names.

    Raises:
        InputError: there are some and none is whole.
    """
    try:
        # Each process may see another state of the folder: the first one's view is everybody's.
        found: list = [find_newest(Path(work_dir), template) if is_main_process() else None]
    except InputError as error:
        found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], InputError):
        raise found[0]
    path, passed_over = found[0]
    if passed_over:
        names = ', '.join(map(str, passed_over))
        logger.warning(f'Passed over {names}, which is not whole: going on from {path}.')
    elif path is None:
        logger.info(f'There is no checkpoint in {work_dir} to resume from: the training begins.')
    return str(path) if path else None


def go_on(runner: Runner | FlexibleRunner, filename: str, states: list[dict] | None) -> None:
    """Let a runner that resumed go on with the images after those that the checkpoint was trained on.

    Args:
        runner: the runner.
        filename: the checkpoint.
        states: what it has of the images' order, see :meth:`Draws.state`.
    """
    loop = runner.train_loop
    if not isinstance(loop.dataloader, TrainingLoader):
        return
    draws = loop.dataloader.draws
    draws.seed = runner.seed  # the checkpoint's
    if isinstance(loop, IterBasedTrainLoop) and draws.endless:
        if not draws.go_on(loop.iter, states, runner.rank, runner.world_size):
            runner.logger.warning(
                f'{filename} is not of {runner.world_size} processes of this version: images come in another order '
                'from here on than they would have there.'
            )
        # MMEngine draws as many batches as were trained on and drops them.
        loop.dataloader_iterator = itertools.chain(itertools.repeat(None, loop.iter), loop.dataloader_iterator)
    elif not isinstance(loop, IterBasedTrainLoop):
        draws.iteration = loop.iter
