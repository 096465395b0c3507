"""The training that the same command left unfinished in its work folder."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from centermask.checkpoints.latest import find_latest
from centermask.checkpoints.loading import read_checkpoint
from centermask.checkpoints.training_state import check_training_state
from centermask.engine.distributed import count_processes
from centermask.engine.early_stopping import ended_early
from centermask.utils.errors import InputError


def resume_unfinished(cfg: Config) -> str:
    """Let a config resume where its work folder has an unfinished training of the same settings.

    Args:
        cfg: of a training that neither resumes nor names a checkpoint; changed in place. Several processes, which may
            not share the folder, begin anew.

    Returns:
        A line about it, empty if there is none or its length is in epochs.
    """
    if count_processes(cfg.launcher) > 1:
        return ''
    folder = Path(cfg.work_dir)
    try:
        path, _ = find_latest(folder)
        if path is None:
            return ''
        state = read_checkpoint(str(path))
        check_training_state(state, str(path), optimizer=False, schedulers=False)
    except InputError:  # none is intact, or the latest is no training's
        return ''
    meta = state['meta']
    end = cfg.train_cfg.get('max_iters', 0)
    if not meta['iter'] or not end:
        return ''
    if meta['iter'] >= end or ended_early(state['message_hub']['runtime_info']):
        # One that was interrupted in its last validation too: its weights are complete.
        return (
            f'{folder} has a training that reached its end ({path.name}): this one begins anew and replaces its files. '
            'To keep them, give another --work-dir; tools/test.py tests that checkpoint.'
        )
    if not _same_settings(str(meta.get('cfg')), cfg.pretty_text):
        return (
            f'{folder} has an unfinished training of other settings ({path.name}): this one begins anew; '
            '--resume continues that one with the settings of now.'
        )
    cfg.update(resume=True, load_from=None)
    return (
        f'{folder} has an unfinished training of the same settings: it goes on after {path.name}. '
        'To start anew, give another --work-dir or remove the folder.'
    )


def _same_settings(saved: str, now: str) -> bool:
    """Return whether a checkpoint's config is the one of now, as text: it may be from others and is never run.

    Of a training that was resumed it doesn't say what it started from.
    """
    resumed = 'resume = True' in saved.splitlines()
    others = ('resume = ', 'work_dir = ', *(['load_from = '] if resumed else []))
    before, after = ([line for line in text.splitlines() if not line.startswith(others)] for text in (saved, now))
    return before == after
