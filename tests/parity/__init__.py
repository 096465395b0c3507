"""Parity with the released implementations: the same numbers for the same synthetic weights."""

from parity.comparison import Row, compare_with_reference
from parity.inputs import find_inputs, read_arrays, read_inputs

__all__ = ['Row', 'compare_with_reference', 'find_inputs', 'read_arrays', 'read_inputs']
