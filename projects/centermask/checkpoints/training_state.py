"""What a checkpoint holds beside weights, looked at before a training goes on from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict

from centermask.arguments import is_whole
from centermask.utils.errors import InputError

_MOST = 10**7  # iterations; to pass over more would take minutes


def require_training(checkpoint: dict[str, Any], source: str, optimizer: bool, schedulers: bool) -> None:
    """Check that a checkpoint has the state of a training, and take out the config in it.

    MMEngine would execute that text, in which a stranger may have written anything.

    Args:
        checkpoint: what the file holds.
        source: its name.
        optimizer, schedulers: whether it must have their states.

    Raises:
        InputError: it lacks something, or has it in another form.
    """
    meta, hub = checkpoint.get('meta', {}), checkpoint.get('message_hub')
    if 'iter' not in meta:
        raise InputError(
            f'The checkpoint {source} holds weights only and no state of a training to resume: '
            'start from it by --cfg-options load_from=FILE.'
        )
    for key in ('iter', 'epoch'):
        if not is_whole(number := meta.get(key)) or not 0 <= number <= _MOST:
            raise _refused(source, f'its meta.{key} is {number!r} and no number of iterations')
    if not isinstance(hub, Mapping) or not isinstance(info := hub.get('runtime_info'), Mapping):
        raise _refused(source, 'its message_hub, the logs of a training, is missing or no dict')
    kept = info.get('keep_ckpt_ids', [])
    if not isinstance(kept, list) or not all(map(is_whole, kept)):  # they say which files go
        raise _refused(source, f'its message_hub.runtime_info.keep_ckpt_ids is {kept!r} and no list of whole numbers')
    if not isinstance(checkpoint.get('optimizer'), Mapping if optimizer else Mapping | None):
        raise _refused(source, "the optimiser's state is missing or no dict")
    states = checkpoint.get('param_schedulers')
    for state in states if isinstance(states, list) else []:
        if not isinstance(state, Mapping) or not {'last_step', 'base_values'} <= {*state}:
            raise _refused(source, f'one of its param_schedulers is {str(state)[:100]} and no state of a schedule')
    if schedulers and not states:
        raise _refused(source, "the schedules' state is missing")
    meta.pop('config', None)


def require_same_optimizer(wrapper: OptimWrapper | OptimWrapperDict, source: str) -> None:
    """Check that what was loaded into an optimiser is of its kind: torch notices that when it first needs a value.

    Raises:
        InputError: it is another's.
    """
    for each in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        for group in each.optimizer.param_groups:
            for key, default in each.optimizer.defaults.items():
                number = isinstance(default, int | float)
                if key not in group or (number and not isinstance(group[key], int | float | torch.Tensor)):
                    raise _refused(source, f"its optimiser is not the config's {type(each.optimizer).__name__} ({key})")


@contextmanager
def explained_resumption(source: str) -> Iterator[None]:
    """Turn what MMEngine raises where a part of a checkpoint is of another form into one sentence.

    Raises:
        InputError: that.
    """
    try:
        yield
    except (InputError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # it looks at nothing before it uses it
        raise _refused(source, ' '.join(f'{type(error).__name__}: {error}'.split())[:200]) from error


def _refused(source: str, why: str) -> InputError:
    return InputError(
        f"The checkpoint {source} can't be resumed, {why}: give one that a training with this config saved, or start "
        'from its weights by --cfg-options load_from=FILE.'
    )
