"""MMEngine's runner with strict checkpoints and with processes on a CPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_distributed, is_main_process
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from centermask.arguments import given, whole_numbers
from centermask.checkpoints.loading import count_classes, load_weights, read_checkpoint, require_fit, start_from
from centermask.checkpoints.training_state import explained_resumption, require_same_optimizer, require_training
from centermask.engine.config_check import check_config, check_pipeline
from centermask.engine.configs import config_errors
from centermask.engine.distributed import join_processes
from centermask.engine.preemption import Interruption, find_checkpoint_hook
from centermask.engine.replay import NotFiniteHook
from centermask.engine.resumable_loader import TrainingLoader, end_workers, leave_signals_to_the_run
from centermask.engine.resumption import choose_start, go_on, register_hooks_of_a_training, with_draws
from centermask.roi_head import CenterMaskRoIHead
from centermask.utils.atomic_io import write_synced
from centermask.utils.errors import ClassCountError


@RUNNERS.register_module()
class CenterMaskRunner(Runner):
    """A ``Runner`` that refuses checkpoints and data which don't fit, and runs several processes without CUDA too.

    Selected by ``runner_type = 'CenterMaskRunner'`` in a config, so that MMDetection's own scripts use it as well.
    """

    _train_dataloader: Any
    _resume: bool
    _load_from: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._interruption = Interruption()
        self._draws: list | None = None  # of the checkpoint, for each process
        super().__init__(*args, **kwargs)

    @classmethod
    def from_cfg(cls, cfg: Any) -> Runner:
        """Build a runner from a config.

        Raises:
            InputError: the config names something that there isn't, or holds a value of a wrong type.
        """
        check_config(cfg)
        return super().from_cfg(cfg)

    def setup_env(self, env_cfg: dict) -> None:
        """Join the other processes here where there is no CUDA, which MMEngine's own way needs."""
        if self.distributed and not is_distributed():
            join_processes(self.launcher)
        super().setup_env(env_cfg)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model of the config.

        Raises:
            InputError: a class, an argument or a value in it doesn't exist.
        """
        with config_errors(self.cfg.filename):
            return super().build_model(model)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for several processes as MMEngine does: each has its own buffers, on a CPU no device."""
        if self.distributed:
            renamed = 'forward_sync_buffers' in inspect.signature(nn.parallel.DistributedDataParallel).parameters
            model_wrapper_cfg = {
                'forward_sync_buffers' if renamed else 'broadcast_buffers': False,  # by the version of torch
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
                **(model_wrapper_cfg or {}),
                **({} if torch.cuda.is_available() else {'device_ids': None}),
            }
        return super().wrap_model(model_wrapper_cfg, model)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        with config_errors(self.cfg.filename, 'train_dataloader or train_cfg'):
            if isinstance(loop, dict):
                counts = given(loop, 'max_iters', 'max_epochs', 'val_interval')
                whole = {key: int(count) if str(count).endswith('.0') else count for key, count in counts.items()}
                whole_numbers('train_cfg', whole)
            if isinstance(self._train_dataloader, dict):
                apart = self._randomness_cfg.get('diff_rank_seed', False)
                built = self.build_dataloader(self._train_dataloader, seed=self.seed, diff_rank_seed=apart)
                self._train_dataloader = TrainingLoader(built, self.seed)
            return self._checked(super().build_train_loop(loop), 'train')

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        with config_errors(self.cfg.filename, 'val_dataloader, val_evaluator or val_cfg'):
            return self._with_rle(self._checked(super().build_val_loop(loop), 'val'))

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        with config_errors(self.cfg.filename, 'test_dataloader, test_evaluator or test_cfg'):
            return self._with_rle(self._checked(super().build_test_loop(loop), 'test'))

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        with config_errors(self.cfg.filename, 'optim_wrapper'):
            return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        with config_errors(self.cfg.filename, 'param_scheduler'):
            return super().build_param_scheduler(scheduler)

    def scale_lr(self, *args: Any) -> None:
        with config_errors(self.cfg.filename, 'auto_scale_lr'):
            super().scale_lr(*args)

    def _with_rle(self, loop: BaseLoop) -> BaseLoop:
        """The loop; its masks come run-length encoded, as COCO's evaluation needs them, unless the config says how."""
        head = getattr(self._detector(), 'roi_head', None)
        if isinstance(head, CenterMaskRoIHead):
            head.test_cfg.setdefault('mask_format', 'rle')
        return loop

    def _checked(self, loop: BaseLoop, mode: str) -> BaseLoop:
        """The loop, if its data have as many classes as the model and their first image can be loaded."""
        classes = getattr(loop.dataloader.dataset, 'metainfo', {}).get('classes')
        in_model = count_classes(self._detector())
        if classes and in_model and len(classes) != in_model:
            some = ', '.join(classes[:5]) + (' ...' if len(classes) > 5 else '')
            raise ClassCountError(
                f'The model of {self.cfg.filename} has {in_model} classes and the data have {len(classes)} ({some}): '
                f'set model.num_classes={len(classes)}, or the classes in the metainfo of every data set.',
                in_model,
                len(classes),
            )
        check_pipeline(loop.dataloader.dataset, f'{mode}_dataloader.dataset', self.cfg.filename)
        return loop

    def _detector(self) -> nn.Module:
        """The model without what is wrapped around it."""
        model = self.model.module if is_model_wrapper(self.model) else self.model
        return model.module if isinstance(model, BaseTTAModel) else model

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
        """As MMEngine builds it, with workers that leave signals to this process."""
        loader = Runner.build_dataloader(*args, **kwargs)
        leave_signals_to_the_run(loader)
        return loader

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Register the config's hooks, and those that every training has."""
        super().register_hooks(default_hooks, custom_hooks)
        register_hooks_of_a_training(self, self._interruption, NotFiniteHook())

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks. Before a run some, as an EMA's, build what their arguments are of."""
        with config_errors(self.cfg.filename, 'hooks') if fn_name == 'before_run' else nullcontext():
            super().call_hook(fn_name, **kwargs)

    def train(self) -> nn.Module:
        """Train; to resume without naming a checkpoint is to take the newest in the work folder that is whole.

        Raises:
            InputError: there are some and none is.
        """
        choose_start(self)
        with self._interruption:
            model = super().train()
        end_workers(self.train_loop, self.val_loop)
        return model

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, meta: dict | None = None, **kwargs: Any) -> None:
        """Save a checkpoint; a local file is written aside, synced and renamed, so that there is never half of one.

        Raises:
            RunError: it can't be written to its end.
        """
        loader = self._train_loop.dataloader if isinstance(self._train_loop, BaseLoop) else None
        meta = with_draws(meta, loader)
        if '://' in out_dir:
            super().save_checkpoint(out_dir, filename, *args, meta=meta, **kwargs)
        elif is_main_process():

            def write(aside: Path) -> None:
                super(CenterMaskRunner, self).save_checkpoint(out_dir, aside.name, *args, meta=meta, **kwargs)

            write_synced(Path(out_dir, filename), write)

    def _init_model_weights(self) -> None:
        """Initialise weights, but for a training that resumes: it needs no pre-trained backbone any more."""
        if not self._resume:
            with config_errors(self.cfg.filename):
                super()._init_model_weights()

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint, with the images after those that were trained on before it, none of which is loaded.

        Args:
            filename: file, URL or short form.
            *args, **kwargs: as MMEngine takes them.

        Raises:
            InputError: it can't be read, doesn't fit, or lacks a part of a training's state.
        """
        with explained_resumption(filename):
            super().resume(filename, *args, **kwargs)
            require_same_optimizer(self.optim_wrapper, filename)
            go_on(self, filename, self._draws)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = True,
        revise_keys: Sequence = (),
    ) -> dict:
        """Load a checkpoint strictly; as the start of a training (``load_from``) layers of the classes may differ.

        Args:
            filename: file, URL or short form.
            map_location: as for ``torch.load``.
            strict, revise_keys: of the signature that MMEngine calls; always strict, and ``module.`` is always removed.

        Raises:
            InputError: it can't be read or doesn't fit.
        """
        checkpoint = read_checkpoint(filename, map_location)
        model = self._detector()
        if isinstance(self._train_loop, BaseLoop) and not self._resume:
            start_from(model, checkpoint, filename)
        else:
            require_fit(load_weights(model, checkpoint['state_dict']), filename, model)
        if self._resume and isinstance(self._train_loop, BaseLoop):
            hook = find_checkpoint_hook(self)  # which may have been told to save less
            optimizer = hook is None or hook.save_optimizer
            schedulers = bool(self.param_schedulers) and (hook is None or hook.save_param_scheduler)
            require_training(checkpoint, filename, optimizer, schedulers)
        self._draws = checkpoint.get('meta', {}).get('draws')
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_weights(model, checkpoint['state_dict'])  # an EMA hook may have swapped them for its own
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint
