"""The state of a training in a checkpoint, checked before a training resumes from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper

from centermask.utils.errors import InputError


def check_training_state(checkpoint: dict[str, Any], source: str, optimizer: bool, schedulers: bool) -> None:
    """Check that a checkpoint has the state of a training, and take out the config in it, which MMEngine would execute.

    Args:
        checkpoint: the file's content.
        source: its name.
        optimizer, schedulers: whether it must have their states.

    Raises:
        InputError: it lacks a part, or has it in another form.
    """
    meta, hub = checkpoint.get('meta', {}), checkpoint.get('message_hub')
    if 'iter' not in meta:
        raise InputError(
            f'The checkpoint {source} holds weights only and no state of a training to resume: '
            'start from it by --cfg-options load_from=FILE.'
        )
    meta.pop('config', None)
    for key in ('iter', 'epoch'):
        if not isinstance(meta.get(key), int) or not 0 <= meta[key] < 10**8:
            raise _refused(source, f'its meta.{key} is {meta.get(key)!r} and no number of iterations')
    if not isinstance(hub, Mapping) or not isinstance(info := hub.get('runtime_info'), dict):
        raise _refused(source, 'its message_hub is missing or no dict')
    if not all(isinstance(number, int) for number in info.get('keep_ckpt_ids', [])):
        raise _refused(source, 'its keep_ckpt_ids, which name files to remove, are no numbers')
    counted = info.get('early_stopping', [0, 0, 0])
    if not isinstance(counted, list) or len(counted) != 3 or not all(isinstance(n, int | float) for n in counted):
        raise _refused(source, 'its early_stopping is no list of three numbers')
    for part, needed in (('optimizer', optimizer), ('param_schedulers', schedulers)):
        if needed and not isinstance(checkpoint.get(part), dict | list):
            raise _refused(source, f'it has no state of {part}')


def check_same_optimizer(wrapper: OptimWrapper, source: str) -> None:
    """Check that the state loaded into an optimiser is of its kind; torch would notice at the first step.

    Raises:
        InputError: it is another's.
    """
    optimizer = wrapper.optimizer
    for key in optimizer.defaults:
        if any(key not in group for group in optimizer.param_groups):
            raise _refused(source, f"its optimiser is not the config's {type(optimizer).__name__} ({key} is missing)")


@contextmanager
def resumption_errors(source: str) -> Iterator[None]:
    """Turn what MMEngine raises where a part of a checkpoint has another form into an :class:`InputError`."""
    try:
        yield
    except (InputError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # MMEngine checks nothing before it uses it
        raise _refused(source, ' '.join(f'{type(error).__name__}: {error}'.split())[:200]) from error


def _refused(source: str, why: str) -> InputError:
    return InputError(
        f"The checkpoint {source} can't be resumed, {why}: give one that a training with this config saved, or start "
        'from its weights by --cfg-options load_from=FILE.'
    )
