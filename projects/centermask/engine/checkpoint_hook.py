"""A checkpoint hook that removes an old file only after the new one is complete."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from centermask.checkpoints.latest import filename_pattern
from centermask.utils.atomic_io import TMP_PREFIX


class DeferredRemoval:
    """A file backend that removes files when :meth:`remove_pending` is called, and only from one folder.

    Args:
        backend: the backend of MMEngine.
        folder: the folder; a name of a checkpoint may come from an untrusted file.
    """

    def __init__(self, backend: Any, folder: str) -> None:
        self._backend = backend
        self._folder = os.path.abspath(folder)
        self._pending: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._pending.append(path)

    def rmtree(self, path: str) -> None:
        """Leave folders alone: no checkpoint of this package is one."""

    def remove_pending(self, kept: set[str | None]) -> None:
        """Remove the files whose removal was asked for, but those of ``kept``."""
        for path in self._pending:
            if path not in kept and os.path.dirname(os.path.abspath(path)) == self._folder:
                self._backend.remove(path)
        self._pending = []


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, which removes the oldest checkpoint, or the best, only after the new one is saved.

    Arguments are MMEngine's. :class:`CenterMaskRunner` saves each file atomically.

    Raises:
        ValueError: there is no such argument, or ``filename_tmpl`` gives all files one name.
    """

    file_backend: Any
    best_ckpt_path: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.best_ckpt_path_dict: dict[str, str | None] = {}
        super().__init__(*args, **kwargs)
        if self.args:
            raise ValueError(f'AtomicCheckpointHook has no argument {" nor ".join(self.args)}')
        filename_pattern(self.filename_tmpl)

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.file_backend = DeferredRemoval(self.file_backend, self.out_dir)
        self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')  # the one that a resumed training begins with
        if is_main_process() and '://' not in str(self.out_dir):
            for incomplete in Path(self.out_dir).glob(f'{TMP_PREFIX}*.pth'):  # of a killed training
                incomplete.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        self.file_backend.remove_pending({self.last_ckpt, self.best_ckpt_path, *self.best_ckpt_path_dict.values()})


def best_checkpoint(runner: Runner) -> Path | None:
    """Return the file of a training's best validation in its work folder, which may have been moved; None without."""
    best = runner.message_hub.runtime_info.get('best_ckpt')
    path = Path(runner.work_dir, Path(best).name) if best else None
    return path if path and path.is_file() else None
