"""The processes of a run, also on CPUs, as the environment of their launcher names them."""

from __future__ import annotations

import os
import subprocess

import torch
from torch import distributed

from centermask.utils.errors import InputError


def is_first_process() -> bool:
    """Return whether this process is the one to print, also before the processes have joined."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def count_processes(launcher: str) -> int:
    """Return how many processes the launcher started."""
    name = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}.get(launcher, '')
    return int(os.environ.get(name, 1))


def join_processes(launcher: str) -> None:
    """Join the processes that torchrun or Slurm started, by gloo; with CUDA leave this to MMEngine.

    Raises:
        InputError: no launcher started this process.
    """
    cuda = torch.cuda.is_available()
    if launcher == 'slurm' and 'SLURM_PROCID' in os.environ and not cuda:
        for name, slurm in (('RANK', 'PROCID'), ('WORLD_SIZE', 'NTASKS'), ('LOCAL_RANK', 'LOCALID')):
            os.environ[name] = os.environ[f'SLURM_{slurm}']
        os.environ.setdefault('MASTER_PORT', '29500')
        if 'MASTER_ADDR' not in os.environ:
            hosts = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
            os.environ['MASTER_ADDR'] = subprocess.run(hosts, capture_output=True, text=True).stdout.split()[0]
    required = {'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'}
    if (launcher == 'pytorch' or not cuda) and not required <= os.environ.keys():
        raise InputError(
            f'--launcher {launcher} is for processes that it started and this is none: '
            'use tools/dist_train.sh, tools/dist_test.sh or tools/slurm_train.sh.'
        )
    if not cuda:
        distributed.init_process_group('gloo')
