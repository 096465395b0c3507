"""``python -m centermask``: the command ``centermask``."""

import sys

from centermask_command import main

sys.exit(main())
