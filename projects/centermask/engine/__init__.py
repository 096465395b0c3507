"""Training and testing: the runner, its hooks and optimiser wrappers, the check of configs, the command lines."""

from centermask.engine import amp, checkpoint_hook, early_stopping, loggers, nonfinite, runner, visualization_hook

__all__ = ['amp', 'checkpoint_hook', 'early_stopping', 'loggers', 'nonfinite', 'runner', 'visualization_hook']
