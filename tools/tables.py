"""Print the paper's tables beside our figures: python tools/tables.py 1 ... 5 | all; or a config: explain CONFIG."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from centermask.benchmark.comparison import latency
from centermask.benchmark.machine import name_of_machine
from centermask.engine.cli import run
from centermask.engine.configs import load_config
from centermask.tables.check import check
from centermask.tables.explain import explain
from centermask.tables.index import LATENCY, TABLES, read_index, write_figures
from centermask.tables.measure import build, count_flops, count_parameters
from centermask.tables.pages import as_csv, markdown, page
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / 'configs'
PAGE = Path('docs/paper_tables.md')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument(
        'what',
        nargs='+',
        metavar='TABLE',
        help='1 to 5 or all; or explain CONFIG, which prints the files that a config inherits and in what it differs '
        'from the first row of its table',
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument('--csv', action='store_true', help='print CSV; without it, Markdown')
    action.add_argument(
        '--check',
        action='store_true',
        help="fail where a row has no config or a count of parameters is more than 0.1 M off the paper's unexplained",
    )
    action.add_argument(
        '--measure',
        choices=('counts', 'latency'),
        help='measure parameters and FLOPs (seconds a row), or latency (runs the models, minutes a row on a CPU), of '
        'every config and write them into configs/metafile.yml',
    )
    action.add_argument('--docs', action='store_true', help=f'write all tables into {PAGE}')
    parser.add_argument('--only', nargs='+', metavar='CONFIG', help='measure only these configs')
    args = parser.parse_args(argv)
    if args.only and not args.measure:
        parser.error('--only goes with --measure')
    if args.what[0] == 'explain' and (args.csv or args.check or args.measure or args.docs):
        parser.error('explain CONFIG takes no option')
    if args.docs and args.what != ['all']:
        parser.error('--docs writes all tables: give all')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    index = read_index(CONFIGS)
    if args.what[0] == 'explain':
        if len(args.what) != 2:
            raise InputError(f'explain takes one config and got {len(args.what) - 1}: give one by its name or path.')
        named = CONFIGS / f'{args.what[1]}.py'  # as the tables name it
        print(explain(named if named.is_file() else Path(args.what[1]), CONFIGS, index.rows))
        return
    numbers = _numbers(args.what)
    if args.check:
        print(check(CONFIGS, index.rows, numbers))
    elif args.measure:
        of_tables = dict.fromkeys(row.config for row in index.rows if row.config and row.table in numbers)
        _measure(args.measure, _chosen(index.configs if 'all' in args.what else list(of_tables), args.only))
    elif args.docs:
        atomic_write_text(REPOSITORY / PAGE, page(index.rows))
        print(f'{PAGE} has the tables')
    else:
        print('\n'.join((as_csv if args.csv else markdown)(number, index.rows) for number in numbers), end='')


def _numbers(words: Sequence[str]) -> list[int]:
    """The tables that the command line names."""
    for word in words:
        if word != 'all' and word not in map(str, TABLES):
            raise InputError(
                f'There is no table {word!r}: give numbers from 1 to {len(TABLES)}, all, or explain CONFIG.'
            )
    return list(TABLES) if 'all' in words else sorted({int(word) for word in words})


def _chosen(names: list[str], only: Sequence[str] | None) -> list[str]:
    """Those of the names that ``--only`` gives, by name or by path."""
    if not only:
        return names
    chosen = [Path(config).stem for config in only]
    for config in chosen:
        if config not in names:
            raise InputError(f'--only: {config} is no config of these tables: give one of {", ".join(names)}.')
    return chosen


def _measure(what: str, names: Sequence[str]) -> None:
    """Measure each config and write its figures before the next one's turn."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    start = time.monotonic()
    for done, name in enumerate(names, 1):
        print(f'{done}/{len(names)} {name}: ', end='', flush=True)
        config = load_config(next(CONFIGS.rglob(f'{name}.py')))
        if what == 'counts':
            parameters, flops = count_parameters(build(config)), count_flops(config)
            figures = dict(Parameters=str(parameters), FLOPs=str(flops))
            found = f'{parameters / 1e6:.2f} M parameters, {flops / 1e9:.1f} GFLOPs'
        else:
            (ms, size), hardware = latency(config, device), name_of_machine(device)
            value = dict(value=round(ms), hardware=hardware, backend='PyTorch', mode='FP32')
            value |= {'batch size': 1, 'resolution': str(size)}
            figures = {LATENCY: json.dumps([value])}  # JSON is YAML in one line
            found = f'{ms:.0f} ms on {hardware}'
        write_figures(CONFIGS, name, figures)
        left = (time.monotonic() - start) / done * (len(names) - done)
        print(f'{found}; {left:.0f} s left', flush=True)
    print('configs/metafile.yml has the figures')


if __name__ == '__main__':
    sys.exit(run(main))
