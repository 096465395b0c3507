"""tools/soak.py: trainings that are killed and interrupted end with the same weights, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest

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
