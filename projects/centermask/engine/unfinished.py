"""The training that the same command left unfinished in its work folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from centermask.checkpoints.latest import find_latest
from centermask.checkpoints.reading import read
from centermask.engine.distributed import count_processes
from centermask.engine.early_stopping import ended_early
from centermask.utils.errors import InputError


def resume_unfinished(cfg: Config) -> str:
    """Let a config resume where its work folder has an unfinished training of the same settings.

    Args:
        cfg: of a training that neither resumes nor names a checkpoint; changed in place. Several processes, which may
            not share the folder, begin anew.

    Returns:
        A line about it, empty if there is no unfinished training.
    """
    folder = Path(cfg.work_dir)
    saved = folder / Path(cfg.filename).name
    if count_processes(cfg.launcher) > 1 or not saved.is_file():
        return ''
    try:
        path, _ = find_latest(folder)
        if path is None:
            return ''
        state = read(str(path)).others
    except InputError:  # there are some and none is intact
        return ''
    iterations = state.get('meta', {}).get('iter', 0)
    info = state.get('message_hub', {}).get('runtime_info', {})
    if not 0 < iterations < cfg.train_cfg.get('max_iters', 0) or ended_early(info):
        return ''
    if _settings(Config.fromfile(saved), cfg) != _settings(cfg, cfg):
        return (
            f'{folder} has an unfinished training of other settings ({path.name}): this one begins anew; '
            '--resume continues that one with the settings of now.'
        )
    cfg.update(resume=True, load_from=None)
    return (
        f'{folder} has an unfinished training of the same settings: it goes on after {path.name}. '
        'To start anew, give another --work-dir or remove the folder.'
    )


def _settings(saved: Config, cfg: Config) -> dict[str, Any]:
    """Return what a config trains with, and from what; of a resumed training that isn't in its saved config."""
    settings = {key: value for key, value in saved.to_dict().items() if key not in ('resume', 'work_dir')}
    if saved.get('resume'):
        settings['load_from'] = cfg.get('load_from')
    return settings
