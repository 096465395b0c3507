"""Start a command in several processes on ``torchrun``: ``python -m centermask.engine.ranks GPUS SCRIPT ARGS...``.

Several machines by the environment: NNODES, NODE_RANK, MASTER_ADDR and PORT, the same command on each.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

import torch
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from centermask.utils.errors import InputError

_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def prepare_processes(gpus: str) -> int:
    """Check the number of processes on this machine, give each its share of threads by the environment, return it.

    Args:
        gpus: the number that the user gave.

    Raises:
        InputError: it is no number, or there are fewer GPUs. Without CUDA it counts processes on the CPU, and a line
            says so.
    """
    if not gpus.isdigit() or int(gpus) < 1:
        raise InputError(f'GPUS is {gpus!r}: give the number of GPUs of this machine to use.')
    count = int(gpus)
    threads = max(1, (os.cpu_count() or 1) // count)
    if torch.cuda.is_available():
        present = torch.cuda.device_count()
        if count > present:
            raise InputError(f'GPUS is {count} but this machine has {present}: ask for at most {present}.')
    else:
        print(f'no CUDA on this machine: {count} processes on the CPU, {threads} threads each', file=sys.stderr)
    for library in ('OMP', 'MKL'):
        os.environ.setdefault(f'{library}_NUM_THREADS', str(threads))
    return count


def start(count: int, command: list[str]) -> int:
    """Run a Python script in ``count`` processes and return the exit code, that of the first one to fail."""
    environ = os.environ
    if environ.get('NNODES', '1') == '1' and 'PORT' not in environ:
        meeting = ['--standalone']  # finds a free port
    else:
        meeting = [
            f'--nnodes={environ.get("NNODES", "1")}',
            f'--node_rank={environ.get("NODE_RANK", "0")}',
            f'--master_addr={environ.get("MASTER_ADDR", "127.0.0.1")}',
            f'--master_port={environ.get("PORT", "29500")}',
        ]
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)  # the failure is reported below, once
    try:
        torchrun.run(torchrun.parse_args([*meeting, f'--nproc_per_node={count}', *command]))
    except ChildFailedError as error:
        # One process's own error makes the others' connections fail, possibly within the clock's second.
        failures = sorted(error.failures.items(), key=lambda item: (not _foreseen(item[1]), item[1].timestamp))
        rank, failure = failures[0]
        if failure.exitcode in _INTERRUPTED:
            print('interrupted', file=sys.stderr)
            return failure.exitcode
        print(f'error: {failure.message}' if _foreseen(failure) else _report(rank, failure), file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 1
    except SignalException as error:
        print('interrupted', file=sys.stderr)
        return 128 + error.sigval
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    return 0


def _foreseen(failure: ProcessFailure) -> bool:
    return bool(failure.error_file_data.get('foreseen'))


def _report(rank: int, failure: ProcessFailure) -> str:
    if 'foreseen' in failure.error_file_data:
        return f'error in process {rank}:\n{failure.message}'
    return f'error: process {rank} ended with exit code {failure.exitcode}'


def main() -> int:
    try:
        return start(prepare_processes(sys.argv[1]), sys.argv[2:])
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code


if __name__ == '__main__':
    sys.exit(main())
