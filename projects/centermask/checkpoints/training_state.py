"""What a checkpoint holds beside weights, looked at before a training goes on from it."""

from __future__ import annotations

from typing import Any

from centermask.errors import InputError


def require_training(checkpoint: dict[str, Any], source: str) -> None:
    """Check that a checkpoint has the state of a training, and take out the config in it.

    MMEngine would execute that text, in which a stranger may have written anything.

    Raises:
        InputError: it hasn't.
    """
    meta = checkpoint.get('meta', {})
    if 'iter' not in meta:
        raise InputError(
            f'The checkpoint {source} holds weights only and no state of a training to resume: '
            'start from it by --cfg-options load_from=FILE.'
        )
    meta.pop('config', None)
