"""Training with weights, gradients and optimiser state split over the processes, by MMEngine's FSDP.

A config chooses it by ``runner_type = 'ShardedRunner'``. Its checkpoints are whole: any config of the same model tests
them, and any number of processes goes on from them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device, is_cuda_available
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import EMAHook
from mmengine.registry import RUNNERS, STRATEGIES
from mmengine.runner import FlexibleRunner
from torch import nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.utils import clip_grad_norm_

from centermask.checkpoints.loading import load_weights, read_checkpoint, require_fit, start_from
from centermask.checkpoints.training_state import explained_resumption, require_same_optimizer, require_training
from centermask.engine.configs import config_errors
from centermask.engine.distributed import join_processes
from centermask.engine.first_image import check_pipeline
from centermask.engine.nonfinite import NotFinite
from centermask.engine.preemption import Interruption
from centermask.engine.replay import NotFiniteHook
from centermask.engine.resumable_loader import TrainingLoader, end_workers, leave_signals_to_the_run
from centermask.engine.resumption import choose_start, go_on, register_hooks_of_a_training, with_draws
from centermask.engine.value_types import check_config
from centermask.utils.atomic_io import write_synced
from centermask.utils.errors import InputError
from centermask.vovnet import OSAModule


def _average_gradient(parameter: nn.Parameter) -> None:
    all_reduce(parameter.grad, 'mean')


def _clip_gradients(model: Any, _: list, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
    """Clip by the norm of all processes' gradients, and return it."""
    return model.clip_grad_norm_(max_norm, norm_type)


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """MMEngine's FSDP strategy for a detector: VoVNet's OSA modules are sharded one by one, the rest together.

    A process holds one OSA module at a time in whole. What heads call of each other isn't only their ``forward``, which
    is where FSDP gathers weights, so they stay together.

    Args:
        model_wrapper: more arguments of ``MMFullyShardedDataParallel``.
        **kwargs: as for ``FSDPStrategy``.

    Attributes:
        source: the checkpoint to begin with, None for none.
        resumes: whether its training goes on, not only its weights.
        draws: what it has of the order of the images.
        config: the file of the config.
    """

    source: str | None = None
    resumes = False
    draws: list[dict] | None = None
    config: str | None = None

    def __init__(self, *, model_wrapper: dict | None = None, **kwargs: Any) -> None:
        wrapper: dict[str, Any] = dict(
            type='MMFullyShardedDataParallel', auto_wrap_policy=ModuleWrapPolicy({OSAModule}), use_orig_params=True
        )
        if not is_cuda_available():
            wrapper['device_id'] = torch.device('cpu')  # else FSDP asks for an accelerator
        # The first process gathers everything, in the host's memory; where it is there already FSDP would free it.
        where: Any = dict(rank0_only=True, offload_to_cpu=is_cuda_available())
        whole = dict(
            state_dict_type='FULL_STATE_DICT',
            state_dict_config=FullStateDictConfig(**where),
            optim_state_dict_config=FullOptimStateDictConfig(**where),
        )
        super().__init__(model_wrapper={**wrapper, **(model_wrapper or {})}, state_dict_cfg=whole, **kwargs)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model of the config.

        Raises:
            InputError: a class, an argument or a value in it doesn't exist.
        """
        with config_errors(self.config):
            built: Any = super().build_model(model)
        built.fuse_conv_bn = False  # a fused copy for validation would be built from shards
        return built

    def _init_model_weights(self, model: nn.Module) -> nn.Module:
        """Give the model its weights, in every process and before they are sharded.

        Raises:
            InputError: the checkpoint can't be read or doesn't fit.
        """
        if not self.resumes:
            model = super()._init_model_weights(model)
        if self.source is not None:
            self._checkpoint = read_checkpoint(self.source)
            self.draws = self._checkpoint.get('meta', {}).get('draws')
            if self.resumes:
                require_fit(load_weights(model, self._checkpoint['state_dict']), self.source, model)
            else:
                start_from(model, self._checkpoint, self.source)
            self.logger.info(f'Load checkpoint from {self.source}')
        return model

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        """Shard the model, but for what is frozen and for single numbers, which FSDP refuses: all processes have it."""
        assert self.model_wrapper is not None
        kept = [p for p in model.parameters() if not (p.requires_grad and p.dim())]
        for parameter in kept:
            parameter.data = parameter.data.to(get_device())
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_average_gradient)
        self.model_wrapper['ignored_states'] = kept
        return super()._wrap_model(model)

    def load_checkpoint(self, filename: str, *, callback: Callable | None = None, **_: Any) -> dict:
        """Return the checkpoint whose weights the model has got already."""
        if callback is not None:
            callback(self._checkpoint)
        return self._checkpoint

    def resume(self, filename: str, **kwargs: Any) -> dict:
        """Go on from the checkpoint.

        Raises:
            InputError: it lacks a part of a training's state.
        """
        with explained_resumption(filename):
            require_training(self._checkpoint, filename, True, bool(getattr(self, 'param_schedulers', None)))
            checkpoint = super().resume(filename, **kwargs)
            require_same_optimizer(self.optim_wrapper, filename)
        return checkpoint

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """As MMEngine's; gradients are clipped by their norm over all processes.

        Raises:
            InputError: a class, an argument or a value in the config doesn't exist.
        """
        if optim_wrapper.get('type') == 'MixedPrecisionOptimWrapper' and is_cuda_available():
            optim_wrapper.setdefault('use_fsdp', True)
        with config_errors(self.config, 'optim_wrapper'):
            built: Any = super().build_optim_wrapper(optim_wrapper, model)
        if built.clip_grad_kwargs and built.clip_func is clip_grad_norm_:
            built.clip_func = partial(_clip_gradients, model)
        return built

    # MMEngine hands these two to torch with the arguments in an order that torch has changed.

    def optim_state_dict(self) -> dict:
        return FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        optimizer = self.optim_wrapper.optimizer
        optimizer.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(self.model, optimizer, state_dict))


class _NotFiniteHook(NotFiniteHook):
    """Without a file to replay: the weights in it would have to come from all processes."""

    def _report(self, runner: Any, why: NotFinite, images: list[str]) -> None:
        runner.logger.error(
            f'Iteration {runner.iter + 1}, process {runner.rank}: a {why.what} is not finite and the step was left '
            f'out ({self._losses()}), images: {", ".join(images)}. '
            'A sharded training writes no file to compute it again.'
        )


@RUNNERS.register_module()
class ShardedRunner(FlexibleRunner):
    """MMEngine's runner of strategies, with strict checkpoints and on CPUs too, for :class:`ShardedStrategy`.

    Raises:
        InputError: it is started in a single process.
    """

    _resume: bool | str
    _load_from: str | None
    _train_dataloader: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._interruption = Interruption()
        super().__init__(*args, **kwargs)

    @classmethod
    def from_cfg(cls, cfg: Any) -> FlexibleRunner:
        """Build a runner from a config.

        Raises:
            InputError: the config names something that there isn't.
        """
        check_config(cfg)
        return super().from_cfg(cfg)

    def build_strategy(self, strategy: Any = None, launcher: str = 'none', **kwargs: Any) -> Any:
        """Join the other processes and build the strategy."""
        if launcher == 'none':
            raise InputError(
                "This config shards the model over several processes: start it by tools/dist_train.sh or Slurm's."
            )
        if not torch.distributed.is_initialized():
            join_processes(launcher)
        built = super().build_strategy(strategy or dict(type='ShardedStrategy'), launcher, **kwargs)
        built.config = self.cfg.filename
        return built

    def train(self) -> nn.Module:
        """Train, from the newest checkpoint of the work folder where a resumption names none."""
        choose_start(self)
        self.strategy.source, self.strategy.resumes = self._load_from, self._resume
        with self._interruption:
            model = super().train()
        end_workers(self.train_loop, self.val_loop)
        return model

    def test(self) -> dict:
        self.strategy.source, self.strategy.resumes = self._load_from, True
        return super().test()

    def build_train_loop(self, loop: Any) -> Any:
        """As :class:`CenterMaskRunner` has it: the order and the augmentation of images don't depend on stops."""
        if isinstance(self._train_dataloader, dict):
            built = self.build_dataloader(self._train_dataloader, seed=self.seed)
            leave_signals_to_the_run(built)
            self._train_dataloader = TrainingLoader(built, self.seed)
            check_pipeline(built.dataset, 'train_dataloader.dataset', self.cfg.filename)
        return super().build_train_loop(loop)

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Register the config's hooks, and those that every training has.

        Raises:
            InputError: one averages weights, of which each process has a part.
        """
        super().register_hooks(default_hooks, custom_hooks)
        if any(isinstance(hook, EMAHook) for hook in self.hooks):
            raise InputError('custom_hooks: EMAHook is not for a sharded training, remove it or train without shards.')
        register_hooks_of_a_training(self, self._interruption, _NotFiniteHook())

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint, with the images after those that were trained on before it."""
        super().resume(filename, *args, **kwargs)
        go_on(self, filename, self.strategy.draws)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, meta: dict | None = None, **kwargs: Any) -> None:
        """Gather a checkpoint from all processes and save it: written aside, synced and renamed.

        Raises:
            RunError: it can't be written to its end.
        """
        meta = with_draws(meta, self._train_dataloader)

        def write(aside: Path) -> None:
            super(ShardedRunner, self).save_checkpoint(out_dir, aside.name, *args, meta=meta, **kwargs)

        if is_main_process():
            write_synced(Path(out_dir, filename), write)
        else:
            write(Path(out_dir, filename))  # its shards go to the first, and it writes nothing
