"""Kill, interrupt and watch small trainings: python tests/soak [--kills 20] [--minutes 30]."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from centermask.engine.cli import run
from centermask.utils.errors import RunError
from soak.rounds import Soak

CONFIG = str(Path(__file__).resolve().parents[1] / 'configs/demo/centermask-lite-star_v2-19-slim_shapes.py')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('--kills', type=int, default=20, help='SIGKILLs at least (default 20)')
    parser.add_argument(
        '--interruptions', type=int, default=4, help='SIGTERMs to one of two processes that train together (default 4)'
    )
    parser.add_argument('--iterations', type=int, default=1000, help="of the memory's test (default 1000)")
    parser.add_argument('--minutes', type=float, default=30, help='more kills until these are over (default 30)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default 0)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    end = time.monotonic() + 60 * args.minutes
    wrong = []
    with tempfile.TemporaryDirectory(prefix='soak-') as folder:
        soak = Soak(CONFIG, Path(folder), random.Random(args.seed), partial(print, flush=True))
        if args.iterations:
            wrong += soak.watch_memory(args.iterations)
        if args.interruptions:
            wrong += soak.crash(signal.SIGTERM, processes=2, count=args.interruptions)
        wrong += soak.crash(signal.SIGKILL, processes=1, count=args.kills, end=end)
    if wrong:
        raise RunError(f'The soak test found {"; ".join(wrong)}: a bug of ours, please report it with the lines above.')


if __name__ == '__main__':
    sys.exit(run(main))
