"""Commands of the set-up: run with a line that shows that they live; where one fails, one sentence says why.

Uses the standard library alone, like setup_env.py, whose part this is.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

AGAIN = 'then run the same command again: it goes on where it stopped'
QUIET = 30.0  # seconds between two lines where the output is not a terminal

# What the log of a failed command says, and the sentence for it; {what} is what was being done.
REASONS = (
    (
        r'No space left on device|Errno 28',
        'The disk is full: {what} needs up to 3 GB (10 GB with the CUDA build of torch); free some space',
    ),
    (
        r'NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|ConnectionResetError'
        r'|Temporary failure in name resolution|Network is unreachable|Connection broken|SSLError',
        'No connection to the package index while {what}: connect this machine, or name a mirror in PIP_INDEX_URL, or '
        'a folder of wheels in PIP_FIND_LINKS together with PIP_NO_INDEX=1',
    ),
    (
        r'ensurepip is not|No module named (ensurepip|venv)',
        'This Python cannot make virtual environments: install its venv module (on Debian and Ubuntu: '
        f'apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv)',
    ),
    (
        r'CUDA_HOME environment variable is not set|nvcc: (not found|No such file)',
        'There is a GPU but no CUDA compiler (nvcc), which mmcv needs: install the CUDA toolkit of the version that '
        'torch was built for and set CUDA_HOME, or choose the CPU build by '
        'TORCH_INDEX=https://download.pytorch.org/whl/cpu',
    ),
    (
        r'detected CUDA version .* mismatches',
        'The CUDA toolkit is of another version than the one that torch was built for: set CUDA_HOME to a matching '
        'one, or choose the build of torch by TORCH_INDEX=https://download.pytorch.org/whl/cuXXX',
    ),
    (
        r'Killed signal|fatal error: Killed|cannot allocate memory|out of memory',
        'Memory ran out while {what}: run again with MAX_JOBS=1 set',
    ),
    (
        r'No matching distribution found for (\S+)|Cannot install (.+?) because',
        'The package index has no {match} that fits the pins, this Python and this machine: check PIP_INDEX_URL, '
        'PIP_FIND_LINKS and TORCH_INDEX',
    ),
)


class SetupError(Exception):
    """The set-up can't go on; the message is one sentence with the remedy, and the command exits with code 2."""


def clock(seconds: float) -> str:
    """Seconds as `2:05`."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def explain(log: str, what: str) -> str | None:
    """The sentence for a failed command, from what it printed; None where no known reason shows."""
    for pattern, sentence in REASONS:
        match = re.search(pattern, log)
        if match:
            return sentence.format(what=what, match=match.group(match.lastindex or 0))
    return None


def stop(process: subprocess.Popen) -> None:
    """End a command and all that it started; what it has compiled stays."""
    for sig, patience in ((signal.SIGINT, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sig)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            if sig == signal.SIGINT:
                time.sleep(1)  # its children may need a moment more than itself


def run(command: list, what: str, log: Path, progress=None, env: dict | None = None) -> None:
    """Run a command with its output in a log file and a line that shows that it lives.

    The line is rewritten every second on a terminal and printed now and then elsewhere.

    Args:
        command: Program and arguments.
        what: What is being done, for the line and for a failure.
        log: File for the output.
        progress: Called with the seconds elapsed; returns the line to show.
        env: Variables set besides the present ones.

    Raises:
        SetupError: The command failed; names the reason, the remedy and the log file.
    """
    terminal = sys.stdout.isatty()
    shown = started = time.monotonic()
    with log.open('w') as stream:
        # A session of its own, so that an interruption ends the compilers behind pip too, and only by stop().
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                now = time.monotonic()
                line = progress(now - started) if progress else f'{what}: {clock(now - started)} elapsed'
                if terminal:
                    print(f'\r    {line}\x1b[K', end='', flush=True)
                elif now - shown >= QUIET:
                    print(f'    {line}', flush=True)
                    shown = now
                time.sleep(0.2 if now - started < 2 else 1.0)
        except BaseException:
            stop(process)
            raise
        finally:
            if terminal:
                print('\r\x1b[K', end='', flush=True)
    if process.returncode:
        text = log.read_text(errors='replace')
        end = log.with_name(f'{log.stem}-end.log')
        end.write_text('\n'.join(text.splitlines()[-30:]) + '\n')
        reason = explain(text, what) or f'{what[0].upper()}{what[1:]} failed: look at the end of the log for the reason'
        raise SetupError(f'{reason}, {AGAIN} (the last lines of the log: {end}; all of it: {log}).')


class CompileProgress:
    """The line shown while mmcv compiles: files compiled, time elapsed, and time left from the pace so far.

    Args:
        source: Folder in which pip builds mmcv.
    """

    def __init__(self, source: Path):
        self.source = source
        self.total = 0
        self.first = self.compiled()

    def compiled(self) -> int:
        return sum(1 for _ in self.source.glob('build/temp*/**/*.o'))

    def __call__(self, elapsed: float) -> str:
        plan = next(self.source.glob('build/temp*/build.ninja'), None)
        if plan is None:
            return f'compiling mmcv: preparing, {clock(elapsed)} elapsed'
        # Written anew by every build: an earlier one's may still be there when this one begins.
        self.total = len(re.findall(r'^build .*: (?:cuda_)?compile ', plan.read_text(), re.MULTILINE))
        done = self.compiled()
        line = f'compiling mmcv: {done} of {self.total} files, {clock(elapsed)} elapsed'
        if done - self.first >= 3:
            left = elapsed / (done - self.first) * (self.total - done)
            line += f', about {clock(left)} left' if done < self.total else ', linking'
        return line
