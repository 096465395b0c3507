"""Time models side by side, each over the first one: python tools/benchmark.py CONFIG [CONFIG ...]."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.device import get_device

from centermask.benchmark.comparison import compare
from centermask.benchmark.metafile import read_metafile
from centermask.benchmark.models import Settings, synthetic_image
from centermask.benchmark.results import tables
from centermask.benchmark.tradeoff import draw_tradeoff
from centermask.datasets.images import find_images, unreadable
from centermask.engine.cli import require_writable, run
from centermask.engine.inferencer import require_device
from centermask.engine.model_names import find_config
from centermask.utils.atomic_io import atomic_write_text
from centermask.utils.errors import InputError

RUNTIMES = ('onnxruntime', 'openvino')
METAFILE = Path(__file__).resolve().parents[1] / 'configs/metafile.yml'
MAX_IMAGES = 4  # of a folder


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'configs', nargs='+', metavar='CONFIG', help='config file, name of a model, or mmdet::FOLDER/NAME.py'
    )
    parser.add_argument('--rounds', type=int, default=7, help='timed rounds (default %(default)s)')
    parser.add_argument('--detections', type=int, default=50, help='detections an image (default %(default)s)')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('SHORTER', 'LONGER'), help="test size, instead of each config's own"
    )
    parser.add_argument('--images', help=f'an image, or a folder of which {MAX_IMAGES} are used (default: synthetic)')
    parser.add_argument(
        '--masks',
        choices=('tensor', 'rle'),
        default='tensor',
        help="masks of the results: bool tensors as for DetInferencer (default), or COCO's RLE as for evaluation",
    )
    parser.add_argument('--threads', type=int, help="threads on a CPU (default torch's)")
    parser.add_argument('--device', default=get_device(), help='cpu, cuda, cuda:1 ... (default %(default)s)')
    parser.add_argument(
        '--equal',
        action='store_true',
        help="other models also with CenterMask's fused layers, memory format and kept buffers",
    )
    parser.add_argument('--amp', action='store_true', help='each model also in bfloat16, on a GPU float16')
    parser.add_argument(
        '--backend',
        default='eager',
        metavar='NAMES',
        help=f'CenterMask also exported: of eager,{",".join(RUNTIMES)} (eager is always timed); with --amp also by '
        'OpenVINO in bfloat16',
    )
    parser.add_argument('--int8', action='store_true', help='models of --backend also quantised, by one image')
    parser.add_argument('--train', type=int, default=0, metavar='IMAGES', help='also a training step of IMAGES images')
    parser.add_argument('--no-stages', action='store_true', help='times alone: no stages and counts')
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
        raise InputError(f'--train {args.train}: give the number of images of a training step, 1 or more.')
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
    settings = Settings(
        images=read_images(args.images) if args.images else [synthetic_image()],
        detections=args.detections,
        rounds=args.rounds,
        device=args.device,
        threads=args.threads,
        size=args.size and tuple(args.size),
        masks=args.masks,
        equal=args.equal,
        amp=args.amp,
        runtimes=[name for name in backends if name != 'eager'],
        int8=args.int8,
        stages=not args.no_stages,
        batch_size=args.train,
    )
    configs = [name if '::' in name else str(find_config(name)) for name in args.configs]
    results = compare(configs, settings, partial(print, flush=True))
    text = tables(results)
    out = args.out / 'benchmark.json'
    atomic_write_text(out, json.dumps(results, indent=1))
    atomic_write_text(args.out / 'benchmark.md', text)
    unknown = draw_tradeoff(read_metafile(METAFILE)[0], args.out / 'benchmark.png', out)
    print(f'\n{text}\ntables: {args.out / "benchmark.md"}, results: {out}, plot: {args.out / "benchmark.png"}')
    if unknown:
        print(f'not in the plot, since their mask AP is unknown: {", ".join(unknown)}')


def read_images(source: str) -> list[np.ndarray]:
    """Return the first images (H, W, 3) of a file or folder in BGR."""
    images = []
    for path in find_images(source)[:MAX_IMAGES]:
        image = mmcv.imread(str(path))
        if image is None:
            raise InputError(unreadable(path))
        images.append(image)
    return images


if __name__ == '__main__':
    sys.exit(run(main))
