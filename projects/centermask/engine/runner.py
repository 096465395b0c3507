"""MMEngine's runner with strict checkpoints and with processes on a CPU."""

from __future__ import annotations

import inspect
import itertools
import os
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import is_distributed, is_main_process
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch import distributed, nn

from centermask.checkpoints.loading import count_classes, load_weights, read_checkpoint, require_fit, start_from
from centermask.engine.launch import explained_model_errors
from centermask.errors import InputError


@RUNNERS.register_module()
class CenterMaskRunner(Runner):
    """A ``Runner`` that refuses checkpoints and data which don't fit, and runs several processes without CUDA too.

    Selected by ``runner_type = 'CenterMaskRunner'`` in a config, so that MMDetection's own scripts use it as well.
    """

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
        with explained_model_errors():
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
        return self._with_its_classes(super().build_train_loop(loop))

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        return self._with_its_classes(super().build_val_loop(loop))

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        return self._with_its_classes(super().build_test_loop(loop))

    def _with_its_classes(self, loop: BaseLoop) -> BaseLoop:
        """The loop, if its data have as many classes as the model."""
        classes = getattr(loop.dataloader.dataset, 'metainfo', {}).get('classes')
        in_model = count_classes(self._detector())
        if classes and in_model and len(classes) != in_model:
            some = ', '.join(classes[:5]) + (' ...' if len(classes) > 5 else '')
            raise InputError(
                f'The model has {in_model} classes and the data have {len(classes)} ({some}): '
                f'set model.num_classes={len(classes)}, or the classes in the metainfo of every data set.'
            )
        return loop

    def _detector(self) -> nn.Module:
        """The model without what is wrapped around it."""
        model = self.model.module if is_model_wrapper(self.model) else self.model
        return model.module if isinstance(model, BaseTTAModel) else model

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; a local file is written aside and renamed, lest an interruption leave half of one."""
        if '://' in out_dir:
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
        elif is_main_process():
            super().save_checkpoint(out_dir, f'{filename}.part', *args, **kwargs)
            os.replace(os.path.join(out_dir, f'{filename}.part'), os.path.join(out_dir, filename))

    def _init_model_weights(self) -> None:
        """Initialise weights, but for a training that resumes: it needs no pre-trained backbone any more."""
        if not (self._resume and (self._load_from or os.path.isfile(os.path.join(self.work_dir, 'last_checkpoint')))):
            super()._init_model_weights()

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint, without loading the images that were trained on before it."""
        super().resume(filename, *args, **kwargs)
        _pass_over(self.train_loop, self.train_loop.iter)

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
        if self._resume and 'iter' not in checkpoint.get('meta', {}):
            raise InputError(
                f'The checkpoint {filename} holds weights only and no state of a training to resume: '
                'start from it by --cfg-options load_from=FILE.'
            )
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_weights(model, checkpoint['state_dict'])  # an EMA hook may have swapped them for its own
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint


def _pass_over(loop: BaseLoop, batches: int) -> None:
    """Draw the images of batches already trained on without loading them.

    A resumed ``IterBasedTrainLoop`` draws as many batches as it has seen and drops them, millions of images late in a
    training. It gets that many empty ones instead, but for those that the workers have begun to load.
    """
    loader = loop.dataloader
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    if isinstance(loop, IterBasedTrainLoop) and isinstance(sampler, InfiniteSampler):
        skipped = max(0, batches - loader.num_workers * (loader.prefetch_factor or 0))
        for _ in range(skipped * loader.batch_sampler.batch_size):
            next(sampler.indices)
        loop.dataloader_iterator = itertools.chain(itertools.repeat(None, skipped), loop.dataloader_iterator)


def join_processes(launcher: str) -> None:
    """On a CPU, join the processes that torchrun or Slurm started, over gloo; with CUDA leave that to MMEngine.

    Raises:
        InputError: this process is none of several.
    """
    environ = os.environ
    cuda = torch.cuda.is_available()
    if launcher == 'slurm' and 'SLURM_PROCID' in environ and not cuda:
        environ['RANK'], environ['WORLD_SIZE'] = environ['SLURM_PROCID'], environ['SLURM_NTASKS']
        environ['LOCAL_RANK'] = environ['SLURM_LOCALID']
        environ.setdefault('MASTER_PORT', '29500')
        if 'MASTER_ADDR' not in environ:
            hosts = ['scontrol', 'show', 'hostnames', environ['SLURM_NODELIST']]
            environ['MASTER_ADDR'] = subprocess.run(hosts, capture_output=True, text=True, check=True).stdout.split()[0]
    needed = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
    if (launcher == 'pytorch' or not cuda) and not all(name in environ for name in needed):
        raise InputError(
            f'--launcher {launcher} is for processes that it started and this is none: '
            'use tools/dist_train.sh, tools/dist_test.sh or tools/slurm_train.sh.'
        )
    if not cuda:
        distributed.init_process_group('gloo')
