"""Print, check and measure the paper's tables, from the entries of configs/metafile.yml."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import mmengine
import numpy as np
import torch
from mmengine.config import Config

from centermask.benchmark.comparison import latency
from centermask.benchmark.costs import count_flops, count_parameters
from centermask.benchmark.machine import name_of_machine
from centermask.benchmark.metafile import LATENCY, NOT_MEASURED, TABLES, Row, read_metafile, write_figures
from centermask.benchmark.models import Settings, TimedModel, build, synthetic_image, timed_model
from centermask.engine.cli import run
from centermask.engine.configs import load_config
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError, RunError

REPOSITORY = Path(__file__).resolve().parents[1]
METAFILE = Path('configs/metafile.yml')
PAGE = Path('docs/paper_tables.md')
MODEL_ZOO = Path('docs/model_zoo.md')

OURS = ('params (M)', 'GFLOPs', 'ms', 'mask AP', 'box AP')
TOLERANCE = 0.1  # million parameters

TITLE = f"""# The paper's tables

Written by `python tools/tables.py --docs` from the entries of `{METAFILE}`, the one source of every figure
here. Every row is a config.
"""
NOTES = f"""Columns marked "paper" hold the paper's figures: AP on COCO val2017 in Tables 1 to 4 and on test-dev in
Table 5 (YOLACT's are its authors'); a dash stands where there is none. Ours: parameters without those of BN, as the
paper counts them; operations (GFLOPs) of convolutions and matrix products, a multiplication and an addition being two,
for one image of the largest test size and as many RoIs as the config's test settings allow; ms of an image of 480×640
pixels, resized as in testing, with 50 detections. "{NOT_MEASURED}" is what nobody has measured here: an AP of ours
needs a training on COCO.

What the configs leave open, where the facts do: no ImageNet weights of VoVNetV1, + residual and + SE are published, so
these rows start from V2's without its attention; Mask R-CNN, RetinaMask and YOLACT are MMDetection's parts in their own
recipes, and comments in their configs name what differs from the original code bases. TensorMask and ShapeMask agree
with numbers of their releases ([baselines_and_panoptic.md](baselines_and_panoptic.md)). Of TensorMask's masks those of
detections alone are computed, so its operations are those of the pyramid levels on which the timed objects lie.
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('tables', nargs='*', metavar='TABLE', help='numbers from 1 to 5 (default: all)')
    action = parser.add_mutually_exclusive_group()
    action.add_argument('--csv', action='store_true', help='print CSV instead of Markdown')
    action.add_argument(
        '--check',
        action='store_true',
        help="fail where a row has no config, or without a reason another number of parameters than the paper's",
    )
    action.add_argument(
        '--measure',
        choices=('counts', 'latency'),
        help=f'write parameters and FLOPs (seconds a config), or latency (minutes on a CPU), into {METAFILE}; without '
        'a TABLE of every config',
    )
    action.add_argument('--docs', action='store_true', help=f'write {PAGE} and {MODEL_ZOO}')
    parser.add_argument('--only', nargs='+', metavar='CONFIG', help='measure only these configs')
    args = parser.parse_args(argv)
    if args.only and not args.measure:
        parser.error('--only goes with --measure')
    if args.docs and args.tables:
        parser.error('--docs writes all tables: give no TABLE')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    for word in args.tables:
        if word not in map(str, TABLES):
            raise InputError(f'There is no table {word!r}: give numbers from 1 to {len(TABLES)}.')
    numbers = sorted({int(word) for word in args.tables}) or list(TABLES)
    rows, configs = read_metafile(REPOSITORY / METAFILE)
    chosen = [row for row in rows if row.table in numbers]
    if args.check:
        print(check(chosen, numbers))
    elif args.measure:
        in_tables = {Path(row.config).stem for row in chosen}
        names = [name for name in configs if not args.tables or name in in_tables]
        for name in map(lambda config: Path(config).stem, args.only or ()):
            if name not in names:
                raise InputError(f'--only: {name} is no config of these tables: give one of {", ".join(names)}.')
        only = {Path(config).stem for config in args.only or names}
        measure(args.measure, {name: configs[name] for name in names if name in only})
    elif args.docs:
        atomic_write_text(REPOSITORY / PAGE, page(rows))
        atomic_write_text(REPOSITORY / MODEL_ZOO, model_zoo())
        print(f'{PAGE} and {MODEL_ZOO} are written')
    else:
        print('\n'.join((as_csv if args.csv else markdown)(number, rows) for number in numbers), end='')


def cells(number: int, rows: Sequence[Row]) -> list[list[str]]:
    """Return a table's cells, the head first; figures that the paper leaves out are empty."""
    table = TABLES[number]
    head = [*table.names, *(f'paper: {name}' for name in table.figures), *(f'ours: {name}' for name in OURS), 'config']
    body = [
        [
            *row.names.values(),
            *(str(row.paper.get(name, '')) for name in table.figures),
            *ours(row),
            Path(row.config).stem,
        ]
        for row in rows
        if row.table == number
    ]
    return [head, *body]


def ours(row: Row) -> list[str]:
    """Return the figures measured here, in the order of ``OURS``."""
    counts = [(row.measured.get('Parameters', NOT_MEASURED), 1e6), (row.measured.get('FLOPs', NOT_MEASURED), 1e9)]
    ms = row.measured.get(LATENCY, NOT_MEASURED)
    return [
        *(value if isinstance(value, str) else f'{value / unit:.1f}' for value, unit in counts),
        ms if isinstance(ms, str) else f'{ms[0]["value"]} ({ms[0]["hardware"]})',
        *(str(row.measured.get(f'Own {kind} AP', NOT_MEASURED)) for kind in ('mask', 'box')),
    ]


def as_csv(number: int, rows: Sequence[Row]) -> str:
    """Return a table as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator='\n').writerows(cells(number, rows))
    return file.getvalue()


def markdown(number: int, rows: Sequence[Row]) -> str:
    """Return a table as Markdown under its title, then notes, and why numbers of parameters are not the paper's."""
    head, *body = cells(number, rows)
    names = len(TABLES[number].names)
    lines = [head, ['---'] * names + ['---:'] * (len(head) - names - 1) + ['---']]
    for row in body:
        config = row[-1] if ' ' in row[-1] else f'`{row[-1]}`'
        lines.append([*(cell.replace('*', r'\*') or '–' for cell in row[:-1]), config])  # noqa: RUF001
    rows = [row for row in rows if row.table == number]
    notes = [f'{", ".join(row.names.values())}: {row.note}.' for row in rows if row.note]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.differs:
            reasons.setdefault(row.differs, []).append(', '.join(row.names.values()))
    notes += [f'Parameters of {"; ".join(of)}: {reason}.' for reason, of in reasons.items()]
    text = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    paragraphs = ''.join(f'\n{textwrap.fill(note, 120, break_on_hyphens=False)}\n' for note in notes)
    return f'**Table {number}**: {TABLES[number].title}.\n\n{text}\n{paragraphs}'


def page(rows: Sequence[Row]) -> str:
    """Return docs/paper_tables.md."""
    return '\n'.join([TITLE, *(markdown(number, rows) for number in TABLES), NOTES])


def model_zoo() -> str:
    """Return docs/model_zoo.md with a line for each released checkpoint in its table."""
    kinds = ('mask AP', 'box AP', 'PQ')
    lines = [f'| config | {" | ".join(kinds)} | COCO | checkpoint |', '| --- | --- | --- | --- | --- | --- |']
    for model in mmengine.load(REPOSITORY / METAFILE)['Models']:
        if 'Weights' not in model:
            continue
        metrics: dict[str, dict[str, float]] = {}
        for result in model['Results']:
            metrics.setdefault(result['Dataset'].removeprefix('COCO '), {}).update(result['Metrics'])
        results = [
            ', '.join(f'{split[kind]:.1f}' for split in metrics.values() if kind in split) or '–'  # noqa: RUF001
            for kind in kinds
        ]
        file = Path(model['Weights'].partition('?')[0]).name
        config = f'`{Path(model["Config"]).stem}`'
        lines.append(f'| {config} | {" | ".join(results)} | {", ".join(metrics)} | [{file}]({model["Weights"]}) |')
    page = (REPOSITORY / MODEL_ZOO).read_text(encoding='utf-8')
    return re.sub(r'(^\|.*\n)+', '\n'.join([*lines, '']), page, count=1, flags=re.MULTILINE)


def check(rows: Sequence[Row], numbers: Sequence[int]) -> str:
    """Check rows and return a summary.

    Raises:
        RunError: a row is missing or has no config; its model has another number of parameters than in the metafile;
            or the number is more than 0.1 M off the paper's and the metafile has no reason, or has a needless one.
    """
    listed = [(row.table, row.number) for row in rows]
    expected = [(number, row) for number in numbers for row in range(1, TABLES[number].rows + 1)]
    faults = [] if listed == expected else [f'the rows are not 1 to {[TABLES[n].rows for n in numbers]} of each table']
    known = []
    for row in rows:
        try:
            count = count_parameters(build(load_config(REPOSITORY / row.config)))
        except InputError as error:
            faults.append(f'{row} has no config: {str(error).rstrip(".")}')
            continue
        if row.measured.get('Parameters') != count:
            faults.append(f'{row} has {count} parameters, the metafile has {row.measured.get("Parameters")}')
        if 'Params (M)' not in TABLES[row.table].figures:
            continue
        paper = float(row.paper.get('Params (M)', 'nan'))
        agrees = abs(count / 1e6 - paper) <= TOLERANCE
        if agrees == bool(row.differs):
            reason = 'has a needless' if row.differs else 'has no'
            faults.append(
                f'{row} has {count / 1e6:.2f} M parameters, the paper {paper} M; the metafile {reason} reason'
            )
        elif row.differs:
            known.append(f'{row}: {count / 1e6:.1f} M parameters, the paper has {paper} M; {row.differs}')
    if faults:
        raise RunError(f'The tables are not in order: {"; ".join(faults)}.')
    return '\n'.join([f'{len(rows)} rows are in order, {len(known)} differ from the paper for a reason', *known])


def measure(what: str, configs: dict[str, str]) -> None:
    """Measure each config and write its figures before the next is measured."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    start = time.monotonic()
    for done, (name, path) in enumerate(configs.items(), 1):
        print(f'{done}/{len(configs)} {name}: ', end='', flush=True)
        config = load_config(REPOSITORY / path)
        if what == 'counts':
            parameters, flops = count_parameters(build(config)), count_flops(largest(config))
            figures = dict(Parameters=str(parameters), FLOPs=str(flops))
            text = f'{parameters / 1e6:.2f} M parameters, {flops / 1e9:.1f} GFLOPs'
        else:
            ms, size = latency(config, Settings([synthetic_image()], device=device))
            hardware = name_of_machine(device)
            value = dict(value=round(ms), hardware=hardware, backend='PyTorch', mode='FP32')
            value |= {'batch size': 1, 'resolution': str(size)}
            figures = {LATENCY: json.dumps([value])}  # JSON is YAML in one line
            text = f'{ms:.0f} ms on {hardware}'
        write_figures(REPOSITORY / METAFILE, name, figures)
        left = (time.monotonic() - start) / done * (len(configs) - done)
        print(f'{text}; {left:.0f} s left', flush=True)
    print(f'{METAFILE} has the figures')


def largest(config: Config) -> TimedModel:
    """Return the model on an image of the config's largest test size, with as many detections as it allows."""
    (scale,) = [t['scale'] for t in config.test_dataloader.dataset.pipeline if t['type'].endswith('Resize')]
    test_cfg = config.model.test_cfg
    detections = test_cfg.get('rcnn', test_cfg)['max_per_img']
    return timed_model(config, Settings([np.zeros((min(scale), max(scale), 3), np.uint8)], detections))


if __name__ == '__main__':
    sys.exit(run(main))
