"""Running the model: the runner, its hooks and optimiser wrappers, config checks, and the command lines' frame."""

from centermask.engine import amp, checkpoint_hook, nonfinite, runner

__all__ = ['amp', 'checkpoint_hook', 'nonfinite', 'runner']
