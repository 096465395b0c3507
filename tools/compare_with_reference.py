"""Compare a model with numbers that its reference computed: see tests/parity/, which does the work."""

import runpy
import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests'))
    runpy.run_module('parity', run_name='__main__', alter_sys=True)
