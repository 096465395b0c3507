"""Checkpoints of which an old one goes only when the new one is in its place."""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine import hooks
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from centermask.checkpoints.latest import numbered
from centermask.utils.atomic_io import TMP_PREFIX, write_synced


@HOOKS.register_module()
class CheckpointHook(hooks.CheckpointHook):
    """MMEngine's, which deletes the oldest checkpoint, and the best, before it writes the one that replaces it.

    It has the same name in MMDetection's registry, so that every config gets it. Arguments are MMEngine's.

    Raises:
        ValueError: there is no such argument, which MMEngine finds out when it saves, or all files would have one name.
    """

    keep_ckpt_ids: deque
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args:
            raise ValueError(f'CheckpointHook has no argument {" nor ".join(self.args)}')
        numbered(self.filename_tmpl)

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')  # the one that a resumed training begins with
        if is_main_process() and '://' not in str(self.out_dir):
            for left in Path(self.out_dir).glob(f'{TMP_PREFIX}*.pth'):  # by a kill
                left.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        saved = [step]
        if self.max_keep_ckpts > 0:
            saved = [*(number for number in self.keep_ckpt_ids if number != step), step]
            # With the one that goes: a kill may come before it has gone, and the resumed run lets it go then.
            runner.message_hub.update_info('keep_ckpt_ids', saved)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
        )
        if is_main_process():
            write_synced(Path(runner.work_dir, 'last_checkpoint'), partial(Path.write_text, data=str(self.last_ckpt)))
        if self.max_keep_ckpts > 0:
            for old in saved[: -self.max_keep_ckpts]:
                self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))
            self.keep_ckpt_ids = deque(saved[-self.max_keep_ckpts :])

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        # MMEngine removes those that it knows of, before it writes.
        one = len(self.key_indicators) == 1
        before = {self.key_indicators[0]: self.best_ckpt_path} if one else self.best_ckpt_path_dict
        self.best_ckpt_path, self.best_ckpt_path_dict = None, dict.fromkeys(self.key_indicators)
        super()._save_best_checkpoint(runner, metrics)
        after = {self.key_indicators[0]: self.best_ckpt_path} if one else self.best_ckpt_path_dict
        for key, path in before.items():
            if path and after[key] and after[key] != path:
                self._remove(path)
        self.best_ckpt_path_dict = {key: path or before[key] for key, path in after.items()}
        self.best_ckpt_path = self.best_ckpt_path_dict[self.key_indicators[0]] if one else None

    def _remove(self, path: str) -> None:
        """Remove a checkpoint from the folder of this training; its name may come from a file of a stranger's."""
        if is_main_process() and os.path.dirname(os.path.abspath(path)) == os.path.abspath(self.out_dir):
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # of sharded models
                self.file_backend.rmtree(path)
