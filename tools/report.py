"""Write a page with the figures, curves and images of a run: WORK_DIR/report/report.html."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.engine.cli import command_line, run
from centermask.report import build_report


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work dir of the training')
    parser.add_argument(
        '--test',
        metavar='DIR',
        type=Path,
        help='work dir of a test by tools/test.py --work-dir DIR --cfg-options '
        'test_evaluator.outfile_prefix=DIR/results (default WORK_DIR/test)',
    )
    parser.add_argument('--out', type=Path, help='folder to write (default WORK_DIR/report)')
    args = parser.parse_args(argv)
    test, out = args.test or args.work_dir / 'test', args.out or args.work_dir / 'report'
    print(build_report(args.work_dir, test, out, command_line()))


if __name__ == '__main__':
    sys.exit(run(main))
