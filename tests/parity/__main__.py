"""Compare a model with its reference's numbers: python tools/compare_with_reference.py CONFIG EXPECTED.npz."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.engine.cli import run
from centermask.engine.configs import load_config
from centermask.utils.errors import RunError
from parity import compare_with_reference, find_inputs, read_arrays


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('config', help='config file; its model gets synthetic weights')
    parser.add_argument('expected', type=Path, metavar='EXPECTED.npz', help='arrays that the reference computed')
    parser.add_argument(
        '--inputs',
        type=Path,
        help='images, boxes and labels, with polygons in a .json file beside, for panoptic models inputs_panoptic.npz '
        "(default: inputs.npz in EXPECTED's folder or the one above)",
    )
    args = parser.parse_args(argv)
    cfg = load_config(args.config)
    expected = read_arrays(args.expected, 'expected file')
    rows = compare_with_reference(cfg, expected, args.inputs or find_inputs(args.expected))
    print(f'{"array":75} {"deviation":>9} {"tolerance":>9}  unit')
    for row in rows:
        print(row)
    wrong = sum(not row.ok for row in rows)
    if wrong:
        raise RunError(f'{wrong} of {len(rows)} arrays are beyond their tolerance or missing, in {args.expected}.')
    print(f'all {len(rows)} arrays agree')


if __name__ == '__main__':
    sys.exit(run(main))
