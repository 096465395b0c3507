"""Several processes by torchrun."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from centermask.engine import ranks
from centermask.utils.errors import InputError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the functions may write to."""
    for library in ('OMP', 'MKL'):
        monkeypatch.setenv(f'{library}_NUM_THREADS', '')
        monkeypatch.delenv(f'{library}_NUM_THREADS')


@pytest.mark.parametrize('gpus', ['0', '-1', 'two', '1.5', ''])
def test_no_number(gpus: str) -> None:
    with pytest.raises(InputError, match=f"GPUS is '{gpus}': give the number of GPUs"):
        ranks.prepare_processes(gpus)


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert ranks.prepare_processes('2') == 2
    with pytest.raises(InputError, match='GPUS is 3 but this machine has 2: ask for at most 2'):
        ranks.prepare_processes('3')


def test_processes_on_a_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 8)
    assert ranks.prepare_processes('3') == 3
    assert capsys.readouterr().err == 'no CUDA on this machine: 3 processes on the CPU, 2 threads each\n'
    assert os.environ['OMP_NUM_THREADS'] == '2'


SCRIPT = """
import os, sys, time
from centermask.engine.cli import run
from centermask.utils.errors import InputError, RunError
def main():
    if os.environ['RANK'] == '1':
        {failure}
    {wait}
sys.exit(run(main))
"""
# Killed from outside, with no word of this package's.
KILLED = """
import os, time
os._exit(7) if os.environ['RANK'] == '1' else time.sleep(600)
"""


@pytest.mark.parametrize(
    ('content', 'code', 'text'),
    [
        # The others wait for the failed process, as in a collective operation, or fail by its absence.
        (
            SCRIPT.format(failure="raise InputError('This is bad.')", wait='time.sleep(600)'),
            2,
            'error: This is bad.\n',
        ),
        (
            SCRIPT.format(failure="raise RunError('This went bad.')", wait="raise OSError('peer')"),
            1,
            'error: This went bad.\n',
        ),
        (KILLED, 7, 'error: process 1 ended with exit code 7\n'),
    ],
    ids=['input', 'run', 'killed'],
)
def test_one_report_and_its_exit_code(content: str, code: int, text: str, tmp_path: Path) -> None:
    script = tmp_path / 'script.py'
    script.write_text(content)
    command = [sys.executable, '-m', 'centermask.engine.ranks', '2', str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code
    assert done.stderr.partition('\n')[2] == text  # after the line about the CPU


@pytest.mark.slow
def test_two_machines(tmp_path: Path) -> None:
    """Played by two commands on this one."""
    script = tmp_path / 'script.py'
    script.write_text(
        'import os, pathlib\n'
        f'pathlib.Path({str(tmp_path)!r}, os.environ["RANK"]).write_text(os.environ["WORLD_SIZE"])\n'
    )
    with socket.socket() as free:
        free.bind(('', 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, '-m', 'centermask.engine.ranks', '2', str(script)]
    environ = {**os.environ, 'NNODES': '2', 'MASTER_ADDR': '127.0.0.1', 'PORT': port}
    machines = [subprocess.Popen(command, env={**environ, 'NODE_RANK': rank}) for rank in ('0', '1')]
    assert [machine.wait(timeout=120) for machine in machines] == [0, 0]
    assert [(tmp_path / str(rank)).read_text() for rank in range(4)] == ['4'] * 4


def test_a_bug_is_reported_with_its_traceback_once(tmp_path: Path) -> None:
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(failure='pass', wait='1 / 0'))
    command = [sys.executable, '-m', 'centermask.engine.ranks', '2', str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count('ZeroDivisionError: division by zero') == 1
