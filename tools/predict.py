"""Detect objects in images, videos and streams: python tools/predict.py INPUT [INPUT ...] --model NAME_OR_CONFIG.

`INPUT ... CONFIG CHECKPOINT` is read too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from centermask.datasets.images import MAX_PIXELS
from centermask.engine.amp import use_half_precision
from centermask.engine.cli import add_config_options, fraction, non_empty, positive, require_writable, run
from centermask.engine.configs import load_config
from centermask.engine.image_prediction import inspect_images, predict_images, require_all, require_apart
from centermask.engine.inferencer import CenterMaskInferencer, require_device
from centermask.engine.model_names import released_weights
from centermask.engine.schedule import fit_config
from centermask.export.exported_detector import require_no_model_options
from centermask.export.runtime import is_exported
from centermask.utils.errors import InputError
from centermask.video.inputs import name_files_not_read, require_packages, sort_inputs


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Detect objects in images, videos and streams.',
        usage='%(prog)s INPUT [INPUT ...] --model NAME_OR_CONFIG [--checkpoint FILE] [options]\n'
        '       %(prog)s INPUT [INPUT ...] CONFIG CHECKPOINT [options]',
    )
    parser.add_argument(
        'inputs',
        nargs='+',
        type=non_empty,
        metavar='INPUT',
        help="an image, a video, a folder of them, a pattern ('*.jpg'), the address of a stream (rtsp://, http:// ...) "
        'or the number of a webcam',
    )
    parser.add_argument('--model', type=non_empty, metavar='NAME_OR_CONFIG', help='name of a model, or a config file')
    parser.add_argument(
        '--checkpoint',
        type=non_empty,
        metavar='FILE',
        help="checkpoint, or a file that tools/export.py made of it (default the model's released weights)",
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('predictions'),
        help='folder of the results (default %(default)s): of images vis/* with detections drawn, and COCO results '
        'predictions.bbox.json and predictions.segm.json; of a panoptic model predictions.panoptic.json too; of a '
        'video NAME.mp4',
    )
    parser.add_argument(
        '--score-thr', type=fraction, default=0.3, help='least score of a drawn detection (default 0.3); JSON holds all'
    )
    parser.add_argument('--json', action='store_true', help='of a video also NAME.json, COCO results by frame')
    parser.add_argument('--track', action='store_true', help='give objects of a video numbers and colours that stay')
    parser.add_argument('--show', action='store_true', help='show a video in a window, which Q closes')
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
    args = parser.parse_args(argv)
    if args.model is None:
        if args.checkpoint or len(args.inputs) < 2:
            parser.error('name a model: --model NAME_OR_CONFIG')
        words = 1 if len(args.inputs) == 2 or args.inputs[-1].endswith('.py') else 2
        args.model, args.checkpoint = (*args.inputs[-words:], None)[:2]
        args.inputs = args.inputs[:-words]
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    inputs = sort_inputs(args.inputs)
    require_apart(inputs.images, args.out_dir)
    images, refused = inspect_images(inputs.images, args.max_pixels) if inputs.images else ([], {})
    name_files_not_read(args.inputs)
    if inputs.videos:
        require_packages(args.track)
    elif args.track or args.show:
        raise InputError('--track and --show are for videos, and none is given: leave them out.')

    def use_data(cfg: Config) -> None:
        if args.data:
            require_writable(args.out_dir, '--out-dir')
            fit_config(cfg, Path(args.data), args.out_dir, args.cfg_options, training=False)

    cfg = load_config(args.model, args.cfg_options, use_data)
    require_device(args.device)
    checkpoint = args.checkpoint or released_weights(args.model)
    if is_exported(checkpoint):
        require_no_model_options(args.cfg_options)
    if args.amp:
        use_half_precision(cfg, args.device, is_exported(checkpoint))
    require_writable(args.out_dir, '--out-dir')
    inferencer = CenterMaskInferencer(cfg, checkpoint, args.device)
    if images:
        predict_images(images, inputs.root, inferencer, args.out_dir, args.score_thr)
    if inputs.videos:
        from centermask.video.prediction import VideoOptions, predict_videos  # which needs PyAV

        options = VideoOptions(args.score_thr, args.json, args.track, args.show)
        predict_videos(inputs.videos, inferencer, args.out_dir, options)
    require_all(inputs.images, refused)


if __name__ == '__main__':
    sys.exit(run(main))
