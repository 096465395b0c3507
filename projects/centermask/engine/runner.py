"""MMEngine's runner with strict checkpoints, exact resumption, and processes on a CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import EMAHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from centermask.checkpoints.loading import check_match, count_classes, load_pretrained, load_weights, read_checkpoint
from centermask.checkpoints.training_state import check_same_optimizer, check_training_state, resumption_errors
from centermask.datasets.augmentation import check_augmentation, check_semantic_data
from centermask.datasets.coco_annotations import shorten
from centermask.datasets.coco_metric import CenterMaskCocoMetric
from centermask.datasets.packing import pack_all_resizes
from centermask.engine.config_check import check_config
from centermask.engine.distributed import join_processes
from centermask.engine.nonfinite import NonFiniteHook
from centermask.engine.preemption import InterruptionHook, find_checkpoint_hook
from centermask.engine.progress_bar import ProgressBarHook
from centermask.engine.randomness import IterationSeedHook
from centermask.engine.resumable_loader import ResumableLoader, end_workers, shield_workers
from centermask.engine.resumed_schedule import ConfiguredSchedule
from centermask.engine.resumption import fast_forward, find_resume_checkpoint
from centermask.engine.rle_results import give_rle_masks
from centermask.panoptic_centermask import PanopticCenterMask
from centermask.roi_head import CenterMaskRoIHead
from centermask.semantic_head import SemanticFPNHead
from centermask.utils.atomic_io import write_synced
from centermask.utils.errors import InputError, config_errors


def _explained(part: str) -> Callable[[Callable], Callable]:
    """Decorate a runner's method that builds a part of its config, so that errors become one sentence with the part."""

    def decorate(build: Callable) -> Callable:
        @functools.wraps(build)
        def explained(runner: Runner, *args: Any, **kwargs: Any) -> Any:
            with config_errors(runner.cfg.filename, part):
                return build(runner, *args, **kwargs)

        return explained

    return decorate


@RUNNERS.register_module()
class CenterMaskRunner(Runner):
    """MMEngine's runner that refuses checkpoints and data which don't fit, and runs several processes on CPUs too.

    ``runner_type = 'CenterMaskRunner'`` in a config selects it, for MMDetection's own scripts as well.
    """

    _resume: bool
    _load_from: str | None

    @classmethod
    def from_cfg(cls, cfg: Any) -> Runner:
        """Build a runner from a config.

        Raises:
            InputError: the config names something that there isn't, or holds a value of a wrong type.
        """
        check_config(cfg)
        return super().from_cfg(cfg)

    build_model = _explained('model')(Runner.build_model)
    build_optim_wrapper = _explained('optim_wrapper')(Runner.build_optim_wrapper)
    scale_lr = _explained('auto_scale_lr')(Runner.scale_lr)

    @_explained('param_scheduler')
    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedulers.

        Raises:
            InputError: MMEngine can't, or one is a warm-up that would keep its first rate for ever.
        """
        built = super().build_param_scheduler(scheduler)
        for one in built if isinstance(built, list) else []:
            if getattr(one, 'total_iters', None) == 0 and getattr(one, 'start_factor', getattr(one, 'factor', 1)) != 1:
                raise ValueError(
                    f'{type(one).__name__} reaches the full rate in its last step, and has but one, which keeps the '
                    f'first: set its end to {one.begin + 2} or more, or leave it out'
                )
        return built

    def setup_env(self, env_cfg: dict) -> None:
        """Join the other processes before MMEngine does, which needs CUDA."""
        if self.distributed and not is_distributed():
            join_processes(self.launcher)
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for several processes, on a CPU without a device."""
        if self.distributed and not torch.cuda.is_available():
            model_wrapper_cfg = {
                'broadcast_buffers': False,  # MMEngine's defaults
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
                **(model_wrapper_cfg or {}),
                'device_ids': None,
            }
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a data loader that can be resumed, and whose workers leave signals to this process."""
        built = Runner.build_dataloader(pack_all_resizes(dataloader), seed, diff_rank_seed)
        shield_workers(built)
        return ResumableLoader(built, seed or 0)

    @_explained('train_dataloader or train_cfg')
    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training's loop."""
        dataset = (self.cfg.get('train_dataloader') or {}).get('dataset', {})
        if isinstance(getattr(self._detector(), 'roi_head', None), CenterMaskRoIHead):
            check_augmentation(dataset, self.cfg.filename)
        if isinstance(self._detector(), PanopticCenterMask):
            check_semantic_data(dataset, self.cfg.filename)
        return self._check_classes(super().build_train_loop(loop))

    @_explained('val_dataloader, val_evaluator or val_cfg')
    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the validation's loop; the training's is built before."""
        built = self._check_classes(super().build_val_loop(loop))
        if isinstance(self._train_loop, BaseLoop):
            self._check_same_classes(built, self._train_loop)
        return self._fit_evaluation(built)

    @_explained('test_dataloader, test_evaluator or test_cfg')
    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the test's loop."""
        return self._fit_evaluation(self._check_classes(super().build_test_loop(loop)))

    def _fit_evaluation(self, loop: BaseLoop) -> BaseLoop:
        """Have masks run-length encoded unless the config says how, and AP of all detections that the model gives."""
        detector = self._detector()
        give_rle_masks(detector)
        options = getattr(detector, 'test_cfg', None) or {}
        limit = options.get('rcnn', options).get('max_per_img', 0)
        for metric in loop.evaluator.metrics:
            if isinstance(metric, CenterMaskCocoMetric):
                metric.max_dets = max(metric.max_dets, limit)
        return loop

    def _check_classes(self, loop: BaseLoop) -> BaseLoop:
        """Check that a loop's data have as many classes as the model, and a panoptic model's also as many of stuff."""
        metainfo = getattr(loop.dataloader.dataset, 'metainfo', {})
        classes, stuff = metainfo.get('classes'), metainfo.get('stuff_classes')
        in_model = count_classes(self._detector())
        if classes and in_model and len(classes) != in_model:
            some = ', '.join(classes[:5]) + (' ...' if len(classes) > 5 else '')
            raise InputError(
                f'The model of {self.cfg.filename} has {in_model} classes and the data have {len(classes)} ({some}): '
                f'set model.num_classes={len(classes)}, or the classes in the metainfo of every data set.'
            )
        head = getattr(self._detector(), 'semantic_head', None)
        if isinstance(head, SemanticFPNHead) and stuff and len(stuff) != head.num_stuff_classes:
            raise InputError(
                f'The model of {self.cfg.filename} has {head.num_stuff_classes} classes of stuff and the data have '
                f'{len(stuff)}: set model.semantic_head.num_stuff_classes={len(stuff)}, or stuff_classes in '
                'the metainfo of every data set.'
            )
        return loop

    def _check_same_classes(self, validation: BaseLoop, training: BaseLoop) -> None:
        """Check that labels mean the same in the data of both loops."""
        tested, trained = (getattr(loop.dataloader.dataset, 'metainfo', {}) for loop in (validation, training))
        for key in ('classes', 'stuff_classes'):
            names, others = trained.get(key), tested.get(key)
            if names and others and tuple(names) != tuple(others):
                raise InputError(
                    f'The training data of {self.cfg.filename} have the {key} {shorten(names)} and those of the '
                    f'validation {shorten(others)}: give both the same metainfo, in the same order.'
                )

    def _detector(self) -> nn.Module:
        """Return the model without its wrappers."""
        model = self.model.module if is_model_wrapper(self.model) else self.model
        return model.module if isinstance(model, BaseTTAModel) else model

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Register the config's hooks, and those that every training has."""
        super().register_hooks(default_hooks, custom_hooks)
        self._interruption, self._progress = InterruptionHook(), ProgressBarHook()
        for hook in (IterationSeedHook(), NonFiniteHook(), self._progress, self._interruption):
            self.register_hook(hook)

    def train(self) -> nn.Module:
        """Train; a training that resumes without naming a checkpoint takes the newest intact one of its work folder.

        Raises:
            InputError: there are checkpoints and none is intact.
        """
        if self._resume and self._load_from is None:
            self._load_from = find_resume_checkpoint(self)
            self._resume = self._load_from is not None
        with self._progress, self._interruption:
            model = super().train()
        end_workers(self.train_loop, self.val_loop)
        return model

    def val(self) -> dict[str, float]:
        """Validate."""
        with self._progress:
            return super().val()

    def test(self) -> dict[str, float]:
        """Test."""
        with self._progress:
            return super().test()

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; a local file is written under another name, synced and renamed.

        Raises:
            RunError: it can't be written completely.
        """
        if '://' in out_dir:
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
        elif is_main_process():
            save = super().save_checkpoint
            write_synced(Path(out_dir, filename), lambda path: save(out_dir, path.name, *args, **kwargs))

    def _init_model_weights(self) -> None:
        """Initialise weights, unless the training resumes: it needs no pre-trained backbone."""
        if not self._resume:
            with config_errors(self.cfg.filename):
                super()._init_model_weights()

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume from a checkpoint; no image that was trained on before it is loaded.

        Where the config has another schedule than the checkpoint, the config's holds.

        Args:
            filename: file, URL or short form.
            *args, **kwargs: as MMEngine takes them.

        Raises:
            InputError: it can't be read, doesn't fit, or lacks a part of a training's state.
        """
        schedule = ConfiguredSchedule(self)
        with resumption_errors(filename):
            super().resume(filename, *args, **kwargs)
            check_same_optimizer(self.optim_wrapper, filename)
            schedule.restore(self)
            fast_forward(self)

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
        model = self._detector()
        checkpoint = read_checkpoint(filename, map_location, panoptic=isinstance(model, PanopticCenterMask))
        training = isinstance(self._train_loop, BaseLoop)
        if training and not self._resume:
            load_pretrained(model, checkpoint, filename)
        else:
            check_match(load_weights(model, checkpoint['state_dict']), filename, model)
        if training and self._resume:
            hook = find_checkpoint_hook(self)  # a config may have it save less
            optimizer = hook is None or hook.save_optimizer
            schedulers = bool(self.param_schedulers) and (hook is None or hook.save_param_scheduler)
            check_training_state(checkpoint, filename, optimizer, schedulers)
            if 'ema_state_dict' in checkpoint and not any(isinstance(hook, EMAHook) for hook in self.hooks):
                raise InputError(
                    f'{filename} holds averaged weights, of a training with --ema: add --ema to go on with it, or '
                    'start from its average by load_from.'
                )
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_weights(model, checkpoint['state_dict'])  # an EMA hook may have swapped them for its own
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint
