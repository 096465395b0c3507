"""The schedule of a resumed training: the config's, where the checkpoint was saved with another."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from centermask.utils.errors import InputError

# Parts of a scheduler's state that are no settings: what it counts and what it computes.
_PROGRESS = ('last_step', '_global_step', '_last_value', 'base_values', 'total_iters', 'verbose')


class ConfiguredSchedule:
    """The settings of an optimiser and its schedulers as a config has them, before a checkpoint replaces them.

    Args:
        runner: a runner that has built both and has trained nothing.
    """

    def __init__(self, runner: Runner) -> None:
        self.groups = _settings(runner.optim_wrapper)
        self.states = [copy.deepcopy(scheduler.state_dict()) for scheduler in runner.param_schedulers or []]

    def restore(self, runner: Runner) -> None:
        """Give these settings to a runner that loaded a checkpoint, if they aren't the checkpoint's; log what changed.

        Rates become those of the next iteration in this schedule. Momentum and the rest of the optimiser's state stay.

        Raises:
            InputError: a schedule follows the results of past validations, so that it can't be computed anew.
        """
        wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers or []
        before = _settings(wrapper)
        changes = dict(self._changes(before, schedulers))
        iterations, epochs = _progress(runner)
        if not changes:
            if all(s._global_step == (epochs if s.by_epoch else iterations) for s in schedulers):
                return
            changes = {'the progress of the schedule': ''}
        if waiting := [type(s).__name__ for s in schedulers if getattr(s, 'need_val_args', False)]:
            raise InputError(
                f"{', '.join(changes)} can't change when a training resumes with {waiting[0]}, which follows past "
                'validations: leave it, or start from the weights by --cfg-options load_from=FILE.'
            )
        self._advance(wrapper, schedulers, iterations, epochs)
        rates = [groups[0]['lr'] for groups in (before, _settings(wrapper))]
        runner.logger.info(
            f"The config's schedule replaces the checkpoint's ({', '.join(f'{k}{v}' for k, v in changes.items())}): "
            f'iteration {runner.iter + 1} is trained at a learning rate of {rates[1]:.4g}, not {rates[0]:.4g}.'
        )

    def _changes(self, before: list[dict], schedulers: list[_ParamScheduler]) -> Iterator[tuple[str, str]]:
        """Yield each setting of the config that the checkpoint's differs from, and both values."""
        for saved, group in zip(before, self.groups, strict=True):
            for key, value in group.items():
                if f'initial_{key}' not in group and saved.get(key) != value:
                    yield key.removeprefix('initial_'), f' {saved.get(key)} → {value}'
        for index, (scheduler, state) in enumerate(zip(schedulers, self.states, strict=True)):
            saved = scheduler.state_dict()
            for key in sorted((saved.keys() | state.keys()).difference(_PROGRESS)):
                if saved.get(key) != state.get(key):
                    yield f'param_scheduler.{index}.{key}', f' {saved.get(key)} → {state.get(key)}'

    def _advance(self, wrapper: OptimWrapper, schedulers: list[_ParamScheduler], iterations: int, epochs: int) -> None:
        """Set the optimiser and its schedulers to what they are after so many iterations and epochs.

        Groups of equal settings, of which there may be hundreds, are computed once.
        """
        stand_ins = {str(group): {**group, 'params': [torch.zeros(1)]} for group in self.groups}
        optimizer = torch.optim.SGD(list(stand_ins.values()))
        copies = []
        for scheduler, state in zip(schedulers, self.states, strict=True):
            copies.append(copied := copy.copy(scheduler))
            base_values = [group[f'initial_{scheduler.param_name}'] for group in stand_ins.values()]
            copied.__dict__ = {**copy.deepcopy(state), 'optimizer': optimizer, 'base_values': base_values}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of schedulers that step without their optimiser
            for iteration in range(1, iterations + 1):
                ended = epochs and iteration % (iterations // epochs) == 0
                for scheduler in copies:
                    if ended or not scheduler.by_epoch:
                        scheduler.step()
        computed = dict(zip(stand_ins, optimizer.param_groups, strict=True))
        for group, configured in zip(wrapper.param_groups, self.groups, strict=True):
            group.update({key: computed[str(configured)][key] for key in configured})
        for scheduler, copied, state in zip(schedulers, copies, self.states, strict=True):
            values = [group[scheduler.param_name] for group in wrapper.param_groups]
            shared = {'optimizer': scheduler.optimizer, 'base_values': state['base_values'], '_last_value': values}
            scheduler.__dict__ = {**copied.__dict__, **shared}


def _settings(wrapper: OptimWrapper) -> list[dict[str, Any]]:
    """Return what the groups of an optimiser hold besides their parameters."""
    return [{key: value for key, value in group.items() if key != 'params'} for group in wrapper.param_groups]


def _progress(runner: Runner) -> tuple[int, int]:
    """Return the iterations and epochs of this config that a resumed training has behind it."""
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        return loop.epoch * len(loop.dataloader), loop.epoch
    return loop.iter, 0
