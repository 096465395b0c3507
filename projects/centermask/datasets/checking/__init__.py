"""Read a data set once and say what is wrong with it: what would end a training, and what it would silently lose."""

from centermask.datasets.checking.assignment import Assignment
from centermask.datasets.checking.check import Check, check_dataset
from centermask.datasets.checking.quick import check_training_data
from centermask.datasets.checking.repair import write_repaired
from centermask.datasets.checking.sheet import draw_worst
from centermask.datasets.checking.table import describe

__all__ = ['Assignment', 'Check', 'check_dataset', 'check_training_data', 'describe', 'draw_worst', 'write_repaired']
