"""Trainings that are killed and interrupted: the same weights at their end, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from centermask.soak.crashes import differences
from centermask.soak.memory import growth

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_nothing_is_lost() -> None:
    """Three SIGKILLs, two of them in the middle of a write, and a SIGTERM to one of two processes."""
    command = [sys.executable, 'tools/soak.py', '--kills=3', '--interruptions=1', '--iterations=0', '--minutes=0']
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('the last checkpoint is that of the uninterrupted training, bit for bit') == 2
    assert 'SIGTERM 1 of 1: exit codes [143, 143]' in done.stdout
    assert '3 times in 1 trainings' in done.stdout and done.stdout.count('one half-written') >= 1


def test_differences() -> None:
    one = {'a': torch.zeros(2), 'b': [1, torch.ones(1)], 'c': {'d': 1.0}}
    assert differences(one, {**one}) == []
    assert differences(one, {**one, 'a': torch.tensor([0, 1e-45])}, 'x') == ['x.a']
    assert differences(one, {**one, 'a': torch.zeros(2, dtype=torch.float64)}) == ['.a']
    assert differences(one, {**one, 'b': [1, torch.zeros(1)], 'c': {'d': 2.0}}) == ['.b.1', '.c.d']
    assert differences(one, {'a': one['a']}, 'x') == ['x (keys)']


def test_growth(tmp_path: Path) -> None:
    path = tmp_path / 'log'
    path.write_text(''.join(f'{i} {500 + i} 100\n' for i in range(10, 1001, 10)))
    assert growth(path) == (755, 1455, 100, 100)
