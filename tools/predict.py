"""Detect objects in images: python tools/predict.py IMAGE_OR_FOLDER CONFIG CHECKPOINT --out-dir DIR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from centermask.datasets.coco_annotations import shorten
from centermask.datasets.images import MAX_PIXELS, SUFFIXES, ImageFacts, describe_range, find_images, inspect_image
from centermask.engine.amp import use_half_precision
from centermask.engine.cli import add_config_options, non_empty, positive, require_writable, run
from centermask.engine.configs import load_config
from centermask.engine.inferencer import CenterMaskInferencer, predict, require_apart, require_device
from centermask.engine.schedule import fit_config
from centermask.export.exported_detector import require_no_model_options
from centermask.export.runtime import is_exported
from centermask.utils.errors import InputError, RunError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('images', metavar='IMAGE_OR_FOLDER', help='an image, or a folder of images')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, or a file that tools/export.py made of it')
    parser.add_argument(
        '--out-dir',
        type=Path,
        required=True,
        help='receives vis/* with detections drawn, and COCO results: predictions.bbox.json and predictions.segm.json; '
        'of a panoptic model predictions.panoptic.json too',
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least score of a drawn detection (default 0.3); JSON holds all'
    )
    parser.add_argument(
        '--data',
        type=non_empty,
        metavar='DIR',
        help='the folder of your own data that the checkpoint was trained on with --data: its classes and, for its '
        'validation images, their ids',
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
    root = Path(args.images) if Path(args.images).is_dir() else found[0].parent
    require_apart(found, args.out_dir)
    facts: dict[Path, ImageFacts] = {}
    refused: dict[Path, InputError] = {}
    for image in found:
        try:
            facts[image] = inspect_image(image, args.max_pixels)
        except InputError as error:
            refused[image] = error
    if not facts:
        raise refused[found[0]]
    for error in refused.values():
        print(f'left out: {error}', file=sys.stderr)
    if Path(args.images).is_dir():
        others = {path.suffix for path in root.rglob('*') if path.is_file() and path not in facts} - {'', *SUFFIXES}
        if others:
            print(f'not read as images: files that end in {", ".join(sorted(others))}')
    images = [*facts]

    def use_data(cfg: Config) -> None:
        if args.data:
            require_writable(args.out_dir, '--out-dir')
            fit_config(cfg, Path(args.data), args.out_dir, args.cfg_options, training=False)

    cfg = load_config(args.config, args.cfg_options, use_data)
    require_device(args.device)
    if is_exported(args.checkpoint):
        require_no_model_options(args.cfg_options)
    if args.amp:
        use_half_precision(cfg, args.device, is_exported(args.checkpoint))
    require_writable(args.out_dir, '--out-dir')
    inferencer = CenterMaskInferencer(cfg, args.checkpoint, args.device)
    panoptic = 'stuff_classes' in inferencer.model.dataset_meta
    what = 'panoptic segments' if panoptic else f'detections above {args.score_thr}'
    print(f'{len(images)} images, {what} are drawn into {args.out_dir / "vis"}')
    if remark := describe_range(facts.values()):
        print(f'{args.images}: {remark}', file=sys.stderr)
    predict(images, root, inferencer, args.out_dir, args.score_thr)
    if refused:
        raise RunError(
            f'{len(refused)} of the {len(found)} images are left out, see above why, and the results of the others are '
            f'written: {shorten(refused)}.'
        )


if __name__ == '__main__':
    sys.exit(run(main))
