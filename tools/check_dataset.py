"""Check a data set in COCO format: python tools/check_dataset.py ANNOTATIONS IMAGES [--fix OUT.json]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.datasets.assignment import Assignment
from centermask.datasets.dataset_check import check_dataset, describe, describe_findings, write_repaired
from centermask.engine.cli import require_writable, run
from centermask.engine.configs import load_config
from centermask.utils.errors import InputError, RunError

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'centermask-lite-star_v2-19_fpn_4x_coco.py'


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('annotations', type=Path, help='JSON file in COCO format')
    parser.add_argument('images', type=Path, help='folder that the names of its images are relative to')
    parser.add_argument(
        '--config', default=str(CONFIG), help='config whose image sizes and heads count (default %(default)s)'
    )
    parser.add_argument('--fix', type=Path, metavar='OUT.json', help='write a corrected copy and print the changes')
    args = parser.parse_args(argv)
    if args.fix:
        if args.fix.suffix != '.json' or args.fix.is_dir():
            raise InputError(f'--fix {args.fix}: give the name of a file that ends in .json.')
        if args.fix.exists() and Path(os.path.realpath(args.images)) in Path(os.path.realpath(args.fix)).parents:
            raise InputError(f'--fix {args.fix} is among the images that are checked: name another file.')
        require_writable(args.fix.parent, '--fix')

    check = check_dataset(args.annotations, args.images, Assignment(load_config(args.config)))
    print(f'{describe(check)}\n\n{describe_findings(check.findings)}')
    trains, remedy = check.trains, '--fix OUT.json corrects what it can'
    if args.fix:
        changes, lost = write_repaired(check, args.fix)
        print('\n'.join(['', f'{args.fix} is written, with these changes:', *(changes or ['None.'])]))
        if lost:
            print('\n'.join(['A training would still lose:', *lost]))
        trains, remedy = not lost, 'larger training images may help'
    if not trains:
        raise RunError(f'{args.fix or args.annotations}: a training would fail or lose objects, see above; {remedy}.')


if __name__ == '__main__':
    sys.exit(run(main))
