"""Running the model: the runner, mixed precision, processes on a CPU, options, and the command lines' frame."""

from centermask.engine import amp, runner, sharding

__all__ = ['amp', 'runner', 'sharding']
