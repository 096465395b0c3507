"""Export a detector: python tools/export.py CONFIG CHECKPOINT --format onnx|openvino --out FILE."""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from centermask.deploy import export, pictures, quantise
from centermask.deploy.accuracy import measure
from centermask.deploy.comparison import compare
from centermask.deploy.metadata import Metadata
from centermask.deploy.runtime import ExportedModel, require
from centermask.detector import CenterMask
from centermask.engine.inferencer import CenterMaskInferencer, find_images
from centermask.engine.launch import add_config_options, load_config, require_writable, run
from centermask.errors import InputError, RunError

SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml'}


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
    if args.out.suffix != SUFFIXES[args.format]:
        raise InputError(f'--out {args.out}: the name of such a file ends in {SUFFIXES[args.format]}.')
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


def calibration_inputs(args: argparse.Namespace, cfg, model: CenterMask) -> quantise.Inputs:  # type: ignore[no-untyped-def]
    """Pictures to quantise by, one after the other."""
    if args.calibration:
        files = [str(path) for path in find_images(args.calibration)][: args.calibration_count]
    else:
        files = pictures.of_data_set(cfg.train_dataloader.dataset, args.calibration_count)
    if not files:
        raise InputError(
            "--int8 needs pictures and the config's training data are not here: give --calibration FOLDER."
        )
    print(f'quantising by {len(files)} pictures')
    batches = (pictures.make_batch(model, [image]) for image in pictures.read(cfg, files))
    return [batch.inputs(args.preprocess) for batch in batches]


def write(args: argparse.Namespace, cfg, model: CenterMask, metadata: Metadata) -> None:  # type: ignore[no-untyped-def]
    """Export the model into ``args.out``."""
    exported = export.to_onnx(model, metadata)
    smaller = copy.copy(metadata)
    smaller.precision = 'half' if args.half else 'int8' if args.int8 else 'float32'
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / 'float32.onnx'
        plain.write_bytes(exported.SerializeToString())
        if args.format == 'openvino':
            network = export.to_openvino(plain, smaller)
            if args.int8:
                network = quantise.int8_openvino(network, calibration_inputs(args, cfg, model))
                export.stamp_openvino(network, smaller)
            export.save_openvino(network, args.out, half=args.half)
            return
        if args.half:
            exported = quantise.half_onnx(exported)
        elif args.int8:
            exported = quantise.int8_onnx(plain, calibration_inputs(args, cfg, model))
        export.stamp(exported, smaller)
        export.save_onnx(exported, args.out)


def check(args: argparse.Namespace, cfg, model: CenterMask) -> None:  # type: ignore[no-untyped-def]
    """Compare the file's detections with the checkpoint's, on both runtimes where they can run it."""
    if args.images:
        files = [str(path) for path in find_images(args.images)]
    else:
        files = pictures.of_data_set(cfg.test_dataloader.dataset, 4)
    images = pictures.read(cfg, files) if files else pictures.made()
    batches = [pictures.make_batch(model, [image]) for image in images]
    if len(images) > 1:
        batches.append(pictures.make_batch(model, images[:2]))
    backends = ['onnxruntime', 'openvino'] if args.format == 'onnx' else ['openvino']
    if export.has_deform_conv(model):
        backends = ['onnxruntime']
    for backend in backends:
        try:
            exported = ExportedModel(args.out, backend)
        except InputError as error:
            if backend == 'openvino' and args.format == 'onnx':
                print(f'not checked by {backend}: {error}')
                continue
            raise
        comparison = compare(model, exported, batches)
        print(f'{backend} on {len(images)} {"pictures" if files else "made pictures"}: {comparison}')
        if comparison.wrong:
            raise RunError(f'{args.out} finds something else than {args.checkpoint} by {backend}: see above.')


def print_accuracy(args: argparse.Namespace, cfg) -> None:  # type: ignore[no-untyped-def]
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
    metadata = export.describe(model, cfg, args.preprocess, args.full_masks, args.fixed)
    if args.format == 'openvino' and export.has_deform_conv(model):
        raise InputError("OpenVINO doesn't run deformable convs of this kind: export with --format onnx.")
    print(f'exporting {args.checkpoint}, which takes a minute')
    write(args, cfg, model, metadata)
    print(f'{args.out} is written, {args.out.with_suffix(SUFFIXES[args.format]).stat().st_size / 1e6:.1f} MB')
    if args.half or args.int8:
        print_accuracy(args, cfg)
    else:
        check(args, cfg, model)


if __name__ == '__main__':
    sys.exit(run(main))
