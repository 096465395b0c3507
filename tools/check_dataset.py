"""Check a data set in COCO format: python tools/check_dataset.py ANNOTATIONS IMAGES [--fix OUT.json]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.datasets.assignment import Assignment
from centermask.datasets.coco_annotations import Kind
from centermask.datasets.dataset_check import (
    check_dataset,
    describe,
    describe_findings,
    describe_scale,
    write_report,
    write_usable,
)
from centermask.engine.cli import fraction, require_writable, run
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
    parser.add_argument(
        '--report', type=Path, metavar='OUT.json', help='write every finding, of which only a few are shown'
    )
    parser.add_argument(
        '--max-lost',
        type=fraction,
        default=0.05,
        metavar='PART',
        help='exit with 1 where a training would lose more than this part of the objects (default %(default)s)',
    )
    args = parser.parse_args(argv)
    for option, path in (('--fix', args.fix), ('--report', args.report)):
        if path:
            if path.suffix != '.json' or path.is_dir():
                raise InputError(f'{option} {path}: give the name of a file that ends in .json.')
            require_writable(path.parent, option)

    assignment = Assignment(load_config(args.config))
    check = check_dataset(args.annotations, args.images, assignment)
    parts = describe(check), describe_findings(check.findings) or 'Nothing is wrong.', describe_scale(check, assignment)
    print('\n\n'.join(filter(None, parts)))
    if args.report:
        write_report(check, args.report)
        print(f'All {len(check.findings)} findings are in {args.report}.')
    lost, listed = check.lost, check.listed
    if args.fix:
        write_usable(check, args.fix)
        kept = {key: len(check.content[key]) for key in ('images', 'annotations')}
        print(f'{args.fix} is written with what can be used: {kept["images"]} images, {kept["annotations"]} objects.')
        lost, listed = check.not_learned, kept['annotations']
        if any(finding.kind is Kind.NOTHING for finding in check.findings):
            raise RunError(f'{args.fix}: there is still nothing to train on, see above.')
        if any(finding.kind is Kind.RANGE for finding in check.findings):
            raise RunError(f'{args.images}: the values of the images must be scaled, see above; --fix mends no images.')
    elif check.fails:
        raise RunError(
            f'{args.annotations}: a training would fail or learn nothing, see above; '
            '--fix OUT.json writes a copy without what can not be used.'
        )
    if lost > args.max_lost * listed:
        raise RunError(
            f'{args.fix or args.annotations}: a training would lose {lost} of {listed} objects ({lost / listed:.1%}), '
            f'see above, and --max-lost allows {args.max_lost:.1%}.'
        )


if __name__ == '__main__':
    sys.exit(run(main))
