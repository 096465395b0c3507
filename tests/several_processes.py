"""Functions run in several processes over gloo: started once for all jobs, since importing costs seconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import distributed, multiprocessing

Job = tuple[int, Callable, tuple]
"""A number of processes, what each of them calls, and with which arguments."""


def in_processes(jobs: Sequence[Job], folder: Path, seconds: int = 240) -> list[list[Any]]:
    """Run jobs one after the other and return what each process's call of each job returned.

    Raises:
        TimeoutError: the jobs hang.
    """
    count = max(processes for processes, _, _ in jobs)
    context = multiprocessing.start_processes(_work, (jobs, str(folder)), nprocs=count, join=False)
    assert context is not None
    try:
        # Returns early, without a result, when the first process is through.
        for _ in range(count + 1):
            if context.join(seconds):
                break
        else:
            raise TimeoutError('processes hang')
    finally:
        for process in context.processes:
            process.kill()
    return [
        [torch.load(folder / f'{number}-{rank}.pt') for rank in range(processes)]
        for number, (processes, _, _) in enumerate(jobs)
    ]


def _work(rank: int, jobs: Sequence[Job], folder: str) -> None:
    torch.set_num_threads(1)
    DefaultScope.get_instance('tests', scope_name='mmdet')
    for number, (processes, function, arguments) in enumerate(jobs):
        if rank >= processes:
            continue
        os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': str(processes)}
        os.environ |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '0'}  # the meeting point is a file
        distributed.init_process_group(
            'gloo', f'file://{folder}/meeting-{number}', timedelta(seconds=60), processes, rank
        )
        torch.save(function(*arguments), f'{folder}/{number}-{rank}.pt')
        distributed.barrier()
        distributed.destroy_process_group()
