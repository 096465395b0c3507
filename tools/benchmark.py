"""Time models side by side, each over the first one: python tools/benchmark.py CONFIG [CONFIG ...]."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from mmengine.device import get_device

from centermask.benchmark.comparison import Wishes, compare
from centermask.benchmark.exported import RUNTIMES
from centermask.benchmark.pictures import make_picture, read_pictures
from centermask.benchmark.report import tables
from centermask.datasets.images import find_images
from centermask.engine.cli import require_writable, run
from centermask.engine.inferencer import require_device
from centermask.figures.tradeoff import draw_tradeoff
from centermask.tables.index import read_index
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
PICTURES = 4  # of a folder, at most


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config file, or mmdet::FOLDER/NAME.py')
    parser.add_argument('--rounds', type=int, default=7, help='rounds that are timed (default %(default)s)')
    parser.add_argument(
        '--detections', type=int, default=50, help='detections that weights are calibrated to (default %(default)s)'
    )
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('SHORTER', 'LONGER'), help="test size, instead of each config's own"
    )
    parser.add_argument('--images', help=f'a photograph, or a folder whose first {PICTURES} count (default: made ones)')
    parser.add_argument(
        '--masks',
        choices=('tensor', 'rle'),
        default='tensor',
        help="what results hold: masks as for DetInferencer (default), or COCO's run lengths as for evaluation",
    )
    parser.add_argument('--threads', type=int, help="on a CPU (default torch's)")
    parser.add_argument('--device', default=get_device(), help='cpu, cuda, cuda:1 ... (default %(default)s)')
    parser.add_argument('--equal', action='store_true', help="MMDetection's models also with our folding and memory")
    parser.add_argument('--amp', action='store_true', help='each model also in bfloat16, on a GPU float16')
    parser.add_argument('--channels-last', action='store_true', help='each model also in channels-last memory')
    parser.add_argument('--compile', action='store_true', help='each model also with torch.compile')
    parser.add_argument(
        '--backend',
        default='eager',
        metavar='NAMES',
        help=f'CenterMask also exported: of eager,{",".join(RUNTIMES)} (eager is timed in any case, to compare with); '
        'with --amp by OpenVINO in bfloat16, too',
    )
    parser.add_argument('--int8', action='store_true', help='those of --backend also quantised, by one picture')
    parser.add_argument(
        '--train',
        type=int,
        default=0,
        metavar='IMAGES',
        help='also a training step of this many images, and the loader',
    )
    parser.add_argument('--no-stages', action='store_true', help='times alone: no stages, counts and memory')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/benchmark'), help='folder of the results (default %(default)s)'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    for option in ('rounds', 'detections', 'threads'):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise InputError(f'--{option} {getattr(args, option)}: give 1 or more.')
    if args.train < 0:
        raise InputError(f'--train {args.train}: give the images of a training step, 1 or more.')
    if args.size and not 32 <= args.size[0] <= args.size[1]:
        raise InputError(f'--size {args.size[0]} {args.size[1]}: give the shorter side first, 32 or more.')
    backends = args.backend.split(',')
    for name in backends:
        if name not in ('eager', *RUNTIMES):
            raise InputError(f'--backend {args.backend}: {name!r} is none of eager, {", ".join(RUNTIMES)}.')
    if args.device != 'cpu' and backends != ['eager']:
        raise InputError(f'--backend {args.backend}: exported models are timed on the CPU, add --device cpu.')
    if args.int8 and backends == ['eager']:
        raise InputError('--int8 is for exported models: add --backend eager,onnxruntime,openvino.')
    require_device(args.device)
    require_writable(args.out, '--out')
    if args.threads:
        torch.set_num_threads(args.threads)
    pictures = read_pictures(find_images(args.images)[:PICTURES]) if args.images else [make_picture(0)]
    wishes = Wishes(
        detections=args.detections,
        rounds=args.rounds,
        device=args.device,
        size=args.size and tuple(args.size),
        masks=args.masks,
        ways=dict(equal=args.equal, amp=args.amp, channels_last=args.channels_last, compiled=args.compile),
        runtimes=[name for name in backends if name != 'eager'],
        int8=args.int8,
        stages=not args.no_stages,
        batch_size=args.train,
    )
    measured = compare(args.configs, pictures, wishes, partial(print, flush=True))
    text = tables(measured)
    out = args.out / 'benchmark.json'
    atomic_write_text(out, json.dumps(measured, indent=1))
    atomic_write_text(args.out / 'benchmark.md', text)
    left_out = draw_tradeoff(read_index(CONFIGS).rows, args.out / 'benchmark.png', out)
    print(f'\n{text}\ntables: {args.out / "benchmark.md"}, figures: {out}, plot: {args.out / "benchmark.png"}')
    if left_out:
        print(left_out)


if __name__ == '__main__':
    sys.exit(run(main))
