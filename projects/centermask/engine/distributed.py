"""The processes of a run, by what the launcher that started them has set."""

from __future__ import annotations

import os
import subprocess

import torch
from torch import distributed

from centermask.utils.errors import InputError


def is_first_process() -> bool:
    """Whether this process is the one to print, also before the processes have joined."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def count_processes(launcher: str) -> int:
    """How many processes train, by what their launcher set."""
    name = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}.get(launcher, '')
    return int(os.environ.get(name, 1))


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
