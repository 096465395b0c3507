"""Write a page with the figures, curves and pictures of a run: WORK_DIR/report/report.html and PNG files."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from centermask.engine.cli import run
from centermask.report import build_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work dir of the training')
    parser.add_argument(
        '--predictions',
        metavar='PREFIX',
        help='where the test left PREFIX.bbox.json and PREFIX.segm.json, by --cfg-options '
        'test_evaluator.outfile_prefix=PREFIX (default WORK_DIR/test/results)',
    )
    parser.add_argument('--out', type=Path, help='folder to write (default WORK_DIR/report)')
    args = parser.parse_args()
    predictions = args.predictions or str(args.work_dir / 'test' / 'results')
    report = build_report(args.work_dir, predictions, args.out or args.work_dir / 'report', shlex.join(sys.argv))
    mask = f'mask AP {report.mask.figures["AP"]:.3f}, ' if report.mask else ''
    print(f'{mask}box AP {report.box.figures["AP"]:.3f}')
    print(f'Report: {report.page}, with {len(report.images)} pictures beside it')


if __name__ == '__main__':
    sys.exit(run(main))
