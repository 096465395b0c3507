"""Parity with the released implementations: the same numbers for the same synthetic weights."""

from parity.comparison import Row
from parity.families import compare_with_reference
from parity.inputs import find_inputs, read_arrays

__all__ = ['Row', 'compare_with_reference', 'find_inputs', 'read_arrays']
