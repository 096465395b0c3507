"""Running the model: the runner, mixed precision, processes on a CPU, options, and the command lines' frame."""

from centermask.engine import amp, checkpoint_hook, runner, sharding

__all__ = ['amp', 'checkpoint_hook', 'runner', 'sharding']
