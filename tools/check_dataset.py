"""Check a data set in COCO format: python tools/check_dataset.py ANNOTATIONS IMAGES [--fix OUT.json]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.datasets.assignment import Assignment
from centermask.datasets.coco_annotations import Kind
from centermask.datasets.dataset_check import check_dataset, describe, describe_findings, write_usable
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
    parser.add_argument('--fix', type=Path, metavar='OUT.json', help='write a copy without what can not be used')
    args = parser.parse_args(argv)
    if args.fix:
        if args.fix.suffix != '.json' or args.fix.is_dir():
            raise InputError(f'--fix {args.fix}: give the name of a file that ends in .json.')
        require_writable(args.fix.parent, '--fix')

    check = check_dataset(args.annotations, args.images, Assignment(load_config(args.config)))
    print(f'{describe(check)}\n\n{describe_findings(check.findings)}')
    if args.fix:
        write_usable(check, args.fix)
        kept = {key: len(check.content[key]) for key in ('images', 'annotations')}
        print(f'{args.fix} is written with what can be used: {kept["images"]} images, {kept["annotations"]} objects.')
        if any(finding.kind is Kind.NOT_LEARNED for finding in check.findings):
            raise RunError(f'{args.fix}: a training would still lose objects; larger training images may help.')
    elif not check.trains:
        raise RunError(
            f'{args.annotations}: a training would fail or lose objects, see above; '
            '--fix OUT.json writes a copy without what can not be used.'
        )


if __name__ == '__main__':
    sys.exit(run(main))
