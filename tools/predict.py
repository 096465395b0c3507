"""Detect objects in images: python tools/predict.py IMAGE_OR_FOLDER CONFIG CHECKPOINT --out-dir DIR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.device import get_device

from centermask.datasets.images import MAX_PIXELS, check_image, find_images
from centermask.engine.amp import use_half_precision
from centermask.engine.cli import add_config_options, positive, require_writable, run
from centermask.engine.configs import load_config
from centermask.engine.inferencer import CenterMaskInferencer, predict, require_apart, require_device
from centermask.export.exported_detector import require_no_model_options
from centermask.export.runtime import is_exported


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('images', metavar='IMAGE_OR_FOLDER', help='an image, or a folder of images')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, or a file that tools/export.py made of it')
    parser.add_argument(
        '--out-dir',
        type=Path,
        required=True,
        help='receives vis/* with detections drawn, and predictions.bbox.json and predictions.segm.json in COCO format',
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least score of a drawn detection (default 0.3); JSON holds all'
    )
    parser.add_argument('--device', default=get_device(), help='cpu, cuda, cuda:1 ... (default %(default)s)')
    parser.add_argument(
        '--max-pixels',
        type=positive,
        default=MAX_PIXELS,
        help='refuse larger images without decoding them (default %(default)s)',
    )
    parser.add_argument(
        '--amp', action='store_true', help='compute in half precision: bfloat16 on a CPU, float16 on a GPU'
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    found = find_images(args.images)
    require_apart(found, args.out_dir)
    facts, refused = {}, {}
    for image in found:
        try:
            facts[image] = inspect_image(image, args.max_pixels)
        except InputError as error:
            refused[image] = error
    if not facts:
        raise refused[found[0]]
    images = [*facts]

    def use_data(cfg: Config) -> None:
        if args.data:
            fit_config(cfg, Path(args.data), args.out_dir, args.cfg_options, training=False)

    cfg = load_config(args.config, args.cfg_options, use_data)
    require_device(args.device)
    if is_exported(args.checkpoint):
        require_no_model_options(args.cfg_options)
    if args.amp:
        use_half_precision(cfg, args.device, is_exported(args.checkpoint))
    require_writable(args.out_dir, '--out-dir')
    inferencer = CenterMaskInferencer(cfg, args.checkpoint, args.device)
    print(f'{len(images)} images, detections above {args.score_thr} are drawn into {args.out_dir / "vis"}')
    if others := other_suffixes(args.images):
        print(f'left out are files that end in {", ".join(others)}')
    if remark := describe_range(facts.values()):
        print(f'{args.images}: {remark}', file=sys.stderr)
    predict(images, Path(args.images) if Path(args.images).is_dir() else images[0].parent, inferencer, ...)
    if refused:
        raise RunError(
            f'{len(refused)} of {len(found)} images are left out, the results of the others are written: '
            + ' '.join(shorten...)
        )
