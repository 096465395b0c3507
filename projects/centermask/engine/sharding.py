"""Training with weights, gradients and optimiser state split over the processes, by MMEngine's FSDP.

A config chooses it by ``runner_type = 'ShardedRunner'``. Its checkpoints are whole: any config of the same model tests
them, and any number of processes goes on from them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device, is_cuda_available
from mmengine.dist import all_reduce, is_main_process
from mmengine.registry import RUNNERS, STRATEGIES
from mmengine.runner import FlexibleRunner, find_latest_checkpoint
from torch import nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from centermask.checkpoints.loading import load_weights, read_checkpoint, require_fit, start_from
from centermask.engine.launch import explained_model_errors
from centermask.engine.runner import join_processes
from centermask.errors import InputError
from centermask.vovnet import OSAModule


def _average_gradient(parameter: nn.Parameter) -> None:
    all_reduce(parameter.grad, 'mean')


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
    """

    source: str | None = None
    resumes = False

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
        with explained_model_errors():
            return super().build_model(model)

    def _init_model_weights(self, model: nn.Module) -> nn.Module:
        """Give the model its weights, in every process and before they are sharded.

        Raises:
            InputError: the checkpoint can't be read or doesn't fit.
        """
        if not self.resumes:
            model = super()._init_model_weights(model)
        if self.source is not None:
            self._checkpoint = read_checkpoint(self.source)
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

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """As MMEngine's.

        Raises:
            InputError: it clips gradients by a norm, of which each process would see a part.
        """
        if optim_wrapper.get('clip_grad'):
            raise InputError('optim_wrapper.clip_grad is not for a sharded training: set it to None.')
        if optim_wrapper.get('type') == 'MixedPrecisionOptimWrapper' and is_cuda_available():
            optim_wrapper.setdefault('use_fsdp', True)
        return super().build_optim_wrapper(optim_wrapper, model)

    # MMEngine hands these two to torch with the arguments in an order that torch has changed.

    def optim_state_dict(self) -> dict:
        return FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        optimizer = self.optim_wrapper.optimizer
        optimizer.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(self.model, optimizer, state_dict))


@RUNNERS.register_module()
class ShardedRunner(FlexibleRunner):
    """MMEngine's runner of strategies, with strict checkpoints and on CPUs too, for :class:`ShardedStrategy`.

    Raises:
        InputError: it is started in a single process.
    """

    def build_strategy(self, strategy: Any = None, launcher: str = 'none', **kwargs: Any) -> Any:
        """Join the other processes and build the strategy."""
        if launcher == 'none':
            raise InputError(
                "This config shards the model over several processes: start it by tools/dist_train.sh or Slurm's."
            )
        if not torch.distributed.is_initialized():
            join_processes(launcher)
        return super().build_strategy(strategy or dict(type='ShardedStrategy'), launcher, **kwargs)

    def train(self) -> nn.Module:
        """Train, from the newest checkpoint of the work folder where a resumption names none."""
        source = self._load_from
        if self._resume and source is None:
            source = find_latest_checkpoint(self.work_dir)
        self.strategy.source, self.strategy.resumes = source, bool(self._resume and source)
        return super().train()

    def test(self) -> dict:
        self.strategy.source, self.strategy.resumes = self._load_from, True
        return super().test()

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Gather a checkpoint from all processes and save it, written aside and renamed."""
        super().save_checkpoint(out_dir, f'{filename}.part', *args, **kwargs)
        if is_main_process():
            os.replace(os.path.join(out_dir, f'{filename}.part'), os.path.join(out_dir, filename))
