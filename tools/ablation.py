"""Train the paper's comparisons in small and print paired differences. Interrupted, the same command goes on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.ablation.report import compare, draw, levels_text, markdown
from centermask.ablation.rows import ROWS, choose
from centermask.ablation.study import Study, carry_out, gather
from centermask.engine.cli import ends_like_ctrl_c, positive, run
from centermask.utils.errors import InputError
from centermask.utils.atomic_io import write_text_aside
from centermask.tables.index import read_index

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


def seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is no number from 0 on')
    return int(text)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--rows', nargs='+', metavar='ROW', help=f'only these: {", ".join(row.name for row in ROWS)} (default all)'
    )
    parser.add_argument('--seeds', nargs='+', type=seed, default=[0, 1, 2], help='default 0 1 2')
    parser.add_argument(
        '--jobs',
        type=positive,
        default=len(os.sched_getaffinity(0)),
        help='trainings side by side, of one thread each (default: the number of cores, here %(default)s)',
    )
    parser.add_argument('--work-dir', type=Path, default='work_dirs/ablation', help='results, table and picture')
    parser.add_argument('--data', type=Path, default='data/ablation', help='where the pictures are or go')
    parser.add_argument('--report', action='store_true', help='train nothing: print what there is')
    return parser.parse_args(argv)


def ablation(study: Study, names: list[str] | None, seeds: Sequence[int], train: bool) -> None:
    """Train what is missing, then print and draw what was found.

    Raises:
        InputError, RunError: as of :func:`centermask.ablation.study.carry_out`, or there is nothing to report.
    """
    rows = choose(names)
    paper = read_index(CONFIGS).rows
    if train:
        carry_out(study, rows, sorted(set(seeds)))
    results = gather(study, ROWS, sorted(set(seeds)))
    if not any(results[row.name] for row in rows):
        raise InputError(
            f'{study.work_dir} holds no results of these rows and seeds: name the --work-dir that does, or leave out '
            '--report to train.'
        )
    comparisons = compare(rows, results, paper)
    table = markdown(rows, results, comparisons)
    print(table)
    print('\n'.join(levels_text(rows, results)))
    write_text_aside(study.work_dir / 'ablation.md', table)
    draw(rows, results, comparisons, study.work_dir / 'ablation.png')
    print(f'Table: {study.work_dir / "ablation.md"}, picture: {study.work_dir / "ablation.png"}')


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    study = Study(
        work_dir=args.work_dir,
        data=args.data,
        configs=CONFIGS,
        base=CONFIGS / 'centermask-lite-star_v2-19-slim_ablation.py',
        start=CONFIGS / 'centermask-lite-star_v2-19-slim_shapes.py',
        jobs=args.jobs,
    )
    with ends_like_ctrl_c('Interrupted: the same command goes on with the trainings that are not done.'):
        ablation(study, args.rows, args.seeds, train=not args.report)


if __name__ == '__main__':
    sys.exit(run(main))
