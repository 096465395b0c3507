"""Check a data set in COCO's format: python tools/check_dataset.py ANN IMAGES [--fix OUT.json] [--sheet FILE]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.datasets.checking import Assignment, check_dataset, describe, draw_worst, write_repaired
from centermask.engine.cli import require_writable, run
from centermask.engine.configs import load_config
from centermask.utils.errors import InputError, RunError

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'centermask-lite-star_v2-19_fpn_4x_coco.py'


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('annotations', type=Path, help="JSON file in COCO's format")
    parser.add_argument('images', type=Path, help='folder that the names of the images in it start from')
    parser.add_argument(
        '--config',
        default=str(CONFIG),
        help='whose image sizes, centre radius and levels count (default %(default)s)',
    )
    parser.add_argument('--fix', type=Path, metavar='OUT.json', help='write a repaired copy, and list each change')
    parser.add_argument('--sheet', type=Path, metavar='FILE', help='write pictures of the worst images (.png, .jpg)')
    args = parser.parse_args(argv)
    for option, path, endings in (('--fix', args.fix, ('.json',)), ('--sheet', args.sheet, ('.png', '.jpg'))):
        if not path:
            continue
        if path.suffix not in endings or path.is_dir():
            raise InputError(f'{option} {path}: it is a file whose name ends in {" or ".join(endings)}.')
        if path.exists() and Path(os.path.realpath(args.images)) in Path(os.path.realpath(path)).parents:
            raise InputError(f'{option} {path} is among the images that are checked: name another file.')
        require_writable(path.parent, option)

    assignment = Assignment(load_config(args.config))
    check = check_dataset(args.annotations, args.images, assignment)
    print(describe(check))
    if args.sheet:
        print(f'\n{draw_worst(check, args.sheet)} images are on {args.sheet}.')
    trains, remedy = check.trains, '--fix OUT.json mends what can be'
    if args.fix:
        changes, left = write_repaired(check, args.fix)
        print(
            '\n'.join(['', f'{len(changes)} changes in {args.fix}:' if changes else f'{args.fix} is a copy.', *changes])
        )
        if left:
            print('\n'.join(['Objects lost still:', *left]))
        trains, remedy = not left, 'only larger training images help these'
    if not trains:
        raise RunError(f'{args.fix or args.annotations}: a training would fail or lose objects, see above; {remedy}.')


if __name__ == '__main__':
    sys.exit(run(main))
