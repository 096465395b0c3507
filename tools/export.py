"""Export a detector: python tools/export.py CONFIG CHECKPOINT --format onnx|openvino --out FILE."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from centermask.datasets.images import find_images
from centermask.detector import CenterMask
from centermask.engine.cli import add_config_options, require_writable, run
from centermask.engine.configs import load_config
from centermask.engine.inferencer import CenterMaskInferencer
from centermask.export import pictures, quantise
from centermask.export.accuracy import measure
from centermask.export.check import check
from centermask.export.files import convert, save_onnx
from centermask.export.onnx import describe, has_deform_conv, to_onnx
from centermask.export.runtime import require
from centermask.utils.errors import InputError, RunError

SUFFIXES = {'onnx': ('.onnx',), 'openvino': ('.xml', '.bin')}  # the first is that of --out


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--format', choices=[*SUFFIXES], default='onnx', help='default %(default)s')
    parser.add_argument(
        '--out', type=Path, required=True, help='the file to write: .onnx, or .xml (and .bin beside it)'
    )
    parser.add_argument(
        '--preprocess', action='store_true', help='take bytes (N, H, W, 3), blue first, and normalise and pad inside'
    )
    parser.add_argument(
        '--full-masks', action='store_true', help="give masks in the images' pixels, not 28×28 in their boxes"
    )
    parser.add_argument(
        '--fixed', action='store_true', help='give as many detections an image as the config allows, missing ones as −1'
    )
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument('--half', action='store_true', help='float16 (ONNX), bfloat16 where the CPU can (OpenVINO)')
    smaller.add_argument('--int8', action='store_true', help="quantise by the runtime's own tool, on --calibration")
    parser.add_argument(
        '--calibration', metavar='FOLDER', help="pictures to quantise by (default: some of the config's training data)"
    )
    parser.add_argument('--calibration-count', type=int, default=32, help='at most so many (default %(default)s)')
    parser.add_argument(
        '--images', metavar='FOLDER', help="pictures to check the file on (default: some of the config's test data)"
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def require_options(args: argparse.Namespace) -> None:
    """Refuse options that don't go together."""
    if args.out.suffix != SUFFIXES[args.format][0]:
        raise InputError(f'--out {args.out}: the name of such a file ends in {SUFFIXES[args.format][0]}.')
    if args.calibration and not args.int8:
        raise InputError('--calibration is for --int8, add that or leave it out.')
    if args.calibration_count < 1:
        raise InputError(f'--calibration-count {args.calibration_count}: give at least 1.')
    for folder in filter(None, (args.images, args.calibration)):
        find_images(folder)  # which are needed at the end alone
    require('onnx'), require('onnxscript'), require('onnxruntime')
    if args.format == 'openvino':
        require('openvino')
        if args.int8:
            require('nncf')


def calibration_inputs(args: argparse.Namespace, cfg: Config, model: CenterMask) -> quantise.Inputs:
    """Of the pictures to quantise by."""
    count = args.calibration_count
    files = pictures.find(args.calibration, cfg, 'train', count)[:count]
    if not files:
        raise InputError(
            "--int8 needs pictures and the config's training data are not here: give --calibration FOLDER."
        )
    print(f'quantising by {len(files)} pictures')
    return pictures.make_inputs(model, pictures.read(cfg, files), args.preprocess)


def print_check(args: argparse.Namespace, cfg: Config, model: CenterMask) -> None:
    """Say how the file's detections compare with the checkpoint's."""
    files = pictures.find(args.images, cfg, 'test', 4)
    images = pictures.read(cfg, files) if files else pictures.made()
    for runtime, found in check(model, args.out, images):
        if isinstance(found, InputError):
            print(f'not checked by {runtime}: {found}')
            continue
        print(f'{runtime} on {len(images)} {"pictures" if files else "made pictures"}: {found}')
        if found.wrong:
            raise RunError(f'{args.out} finds something else than {args.checkpoint} by {runtime}: see above.')


def print_accuracy(args: argparse.Namespace, cfg: Config) -> None:
    """Say how much AP the smaller numbers cost."""
    if not pictures.of_data_set(cfg.test_dataloader.dataset, 1):
        print("what it costs in AP is not measured: the config's test data are not here")
        return
    before, after = measure(cfg, args.checkpoint), measure(cfg, str(args.out))
    for key, value in before.items():
        print(f'{key}: {value:.3f} by the checkpoint, {after[key]:.3f} by the file, {value - after[key]:+.3f} lost')


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    require_options(args)
    cfg = load_config(args.config, args.cfg_options)
    require_writable(args.out.parent, '--out')
    model = CenterMaskInferencer(cfg, args.checkpoint, 'cpu').model
    metadata = describe(model, cfg, args.preprocess, args.full_masks, args.fixed)
    if args.format == 'openvino' and has_deform_conv(model):
        raise InputError("OpenVINO doesn't run deformable convs of this kind: export with --format onnx.")
    print(f'exporting {args.checkpoint}, which takes a minute')
    exported = to_onnx(model, metadata)
    metadata.precision = 'half' if args.half else 'int8' if args.int8 else 'float32'
    inputs = calibration_inputs(args, cfg, model) if args.int8 else ()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / 'float32.onnx'
        save_onnx(exported, plain)
        convert(plain, args.out, metadata, inputs)
    for file in map(args.out.with_suffix, SUFFIXES[args.format]):
        print(f'{file} is written, {file.stat().st_size / 1e6:.1f} MB')
    if args.half or args.int8:
        print_accuracy(args, cfg)
    else:
        print_check(args, cfg, model)


if __name__ == '__main__':
    sys.exit(run(main))
