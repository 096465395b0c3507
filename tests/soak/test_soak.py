"""The soak test, in short."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_and_interrupted_trainings_end_with_the_same_weights() -> None:
    """Two SIGKILLs, one of them in the middle of a write, and a SIGTERM to one of two processes."""
    command = [sys.executable, str(Path(__file__).parent), '--kills=2', '--interruptions=1']
    done = subprocess.run([*command, '--iterations=0', '--minutes=0'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('the last checkpoint equals the undisturbed one, bit for bit') == 2
    assert 'SIGTERM: 1 times in 1 trainings' in done.stdout
    assert 'SIGKILL: 2 times in 1 trainings' in done.stdout
